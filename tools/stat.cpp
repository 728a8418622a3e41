// The verb that shows the pools: once, again and again, or what they were.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "policy/changes.hpp"
#include "policy/clock.hpp"
#include "policy/ledger/ledger.hpp"
#include "tools/choose.hpp"
#include "tools/show.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {
namespace {

using ledger::History;
using ledger::Snapshot;

// `complaints`: why something is not shown. `leftovers` are only told of.
struct Look {
  std::string text;
  std::vector<std::string> complaints;
  std::vector<std::string> leftovers;
  int code = 0;  // what the complaints come to
};

std::int64_t second_of(Instant now) {
  return std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
}

// Leaves the pools that are meant.
template <class Pool>
void keep_meant(const StatOptions& options, std::vector<Pool>& pools, Look& look) {
  if (!look.complaints.empty() || pools.empty()) look.code = kRefused;
  const bool any = !pools.empty();
  std::erase_if(pools, [&](const Pool& one) { return !names_gpu(options.gpu, one.gpu); });
  if (!any || !pools.empty()) return;
  look.complaints.push_back("stat: no pool is of GPU " + shown(options.gpu));
  look.code = kBadUse;
}

Look look_at_history(const StatOptions& options, const std::string& directory) {
  Look look;
  const Instant now = steady_clock().now();
  std::vector<History> histories =
      ledger::read_histories(directory, now, look.complaints, &look.leftovers);
  keep_meant(options, histories, look);
  if (options.json) {
    look.text = json_of(histories, second_of(now), options.every.has_value());
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
  std::vector<Snapshot> pools = ledger::read_pools(directory, look.complaints, &look.leftovers);
  keep_meant(options, pools, look);
  if (options.json) {
    look.text = json_of(pools, options.every.has_value());
    return look;
  }
  for (const Snapshot& pool : pools) {
    look.text += (look.text.empty() ? "" : "\n") + table_of(pool);
  }
  return look;
}

// On a terminal in place, line by line, so that nothing flickers; else one block after the other.
int show(const std::string& text, bool in_place) {
  if (!in_place) {
    fmt::print("{}", text);
    return flush(0);
  }
  std::string screen = "\x1b[H";
  for (const char c : text) {
    if (c == '\n') screen += "\x1b[K";
    screen += c;
  }
  fmt::print("{}\x1b[J", screen);
  return flush(0);
}

// Until a signal ends the process, or nobody reads any more.
int watch(const StatOptions& options, const std::string& directory) {
  const bool in_place = ::isatty(STDOUT_FILENO) == 1 && !options.json;
  if (in_place) fmt::print("\x1b[2J");
  const Instant begin = steady_clock().now();
  std::vector<std::string> told;
  for (std::int64_t round = 1;; ++round) {
    Look now = look(options, directory);
    now.complaints.insert(now.complaints.end(), now.leftovers.begin(), now.leftovers.end());
    if (!options.json) {
      for (const std::string& line : now.complaints) now.text += line + "\n";
      if (!in_place) now.text += "\n";
    } else if (now.complaints != told) {
      for (const std::string& line : now.complaints) complain(line);
      told = now.complaints;
    }
    if (const int code = show(now.text, in_place); code != 0) return code;
    std::this_thread::sleep_for(begin + *options.every * round - steady_clock().now());
  }
}

}  // namespace

int stat(const StatOptions& options) {
  std::string directory;
  if (const int code = find_directory("stat", options.directory, directory); code != 0) return code;
  if (options.every) return watch(options, directory);
  const Look once = look(options, directory);
  fmt::print("{}", once.text);
  for (const std::string& line : once.leftovers) complain(line);
  for (const std::string& line : once.complaints) complain(line);
  return once.code;
}

}  // namespace kvcached::tools
