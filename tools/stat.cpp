// The verb that shows the pools: once, again and again, or what they were.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "policy/clock.hpp"
#include "policy/ledger/ledger.hpp"
#include "tools/choose.hpp"
#include "tools/show.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {
namespace {

using ledger::History;
using ledger::Snapshot;

struct Look {
  std::string text;
  std::vector<std::string> complaints;
};

std::int64_t second_of(Instant now) {
  return std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
}

Look look_at_history(const StatOptions& options, const std::string& directory) {
  Look look;
  const Instant now = steady_clock().now();
  std::vector<History> histories = ledger::read_histories(directory, now, look.complaints);
  std::erase_if(histories, [&](const History& one) { return !names_gpu(options.gpu, one.gpu); });
  if (options.json && !histories.empty()) {
    look.text = json_of(histories, second_of(now));
    return look;
  }
  for (const History& history : histories) {
    look.text += (look.text.empty() ? "" : "\n") + curves_of(history, second_of(now));
  }
  return look;
}

Look look(const StatOptions& options, const std::string& directory) {
  if (options.history) return look_at_history(options, directory);
  Look look;
  std::vector<Snapshot> pools = ledger::read_pools(directory, look.complaints);
  const bool any = !pools.empty();
  std::erase_if(pools, [&](const Snapshot& one) { return !names_gpu(options.gpu, one.gpu); });
  if (any && pools.empty()) look.complaints.push_back("stat: no pool is of GPU " + options.gpu);
  if (options.json) {
    if (!pools.empty() || options.every) look.text = json_of(pools, options.every.has_value());
    return look;
  }
  for (const Snapshot& pool : pools) {
    look.text += (look.text.empty() ? "" : "\n") + table_of(pool);
  }
  return look;
}

// On a terminal in place, line by line, so that nothing flickers; else one block after the other.
void show(const std::string& text, bool in_place) {
  if (!in_place) {
    fmt::print("{}", text);
    std::fflush(stdout);
    return;
  }
  std::string screen = "\x1b[H";
  for (const char c : text) {
    if (c == '\n') screen += "\x1b[K";
    screen += c;
  }
  fmt::print("{}\x1b[J", screen);
  std::fflush(stdout);
}

// Until a signal or a closed pipe ends the process.
[[noreturn]] void watch(const StatOptions& options, const std::string& directory) {
  const bool in_place = ::isatty(STDOUT_FILENO) == 1 && !options.json;
  if (in_place) fmt::print("\x1b[2J");
  const Instant begin = steady_clock().now();
  for (std::int64_t round = 1;; ++round) {
    Look now = look(options, directory);
    if (!options.json) {
      for (const std::string& line : now.complaints) now.text += line + "\n";
      if (!in_place) now.text += "\n";
    }
    show(now.text, in_place);
    std::this_thread::sleep_for(begin + *options.every * round - steady_clock().now());
  }
}

}  // namespace

int stat(const StatOptions& options) {
  std::string directory;
  if (const std::string why = find_directory(options.directory, directory); !why.empty()) {
    return complain("stat: " + why);
  }
  if (options.every) watch(options, directory);
  const Look once = look(options, directory);
  fmt::print("{}", once.text);
  for (const std::string& line : once.complaints) complain(line);
  return once.complaints.empty() ? 0 : kBadUse;
}

}  // namespace kvcached::tools
