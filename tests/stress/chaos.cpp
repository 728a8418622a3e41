// Engines of one pool that are killed, stopped, forked and refused memory at random, while each of
// them knows what must be in its blocks. On the simulated GPU, or on a real one.
//
//   build/tests/chaos [--seconds N] [--engines N] [--seed N] [--real]
//
// Fails on a wrong byte, on a wait that exceeds its bound, on a tenant that is kept below its
// minimum, on an engine that ends or stands still by itself, and on books that are not exact when
// all have ended. Says what, and the seed: choices are the same for a seed, moments are not.
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include "bench/measure/child.hpp"
#include "bench/measure/numbers.hpp"
#include "policy/ledger/ledger.hpp"
#include "tests/stress/chaos_players.hpp"

namespace {

using namespace kvcached;
using namespace kvcached::chaos;
using bench::Clock;
using bench::seconds;
using nlohmann::json;

constexpr double kLongestStop = 3;
constexpr double kStill = 25;   // without a step, not stopped
constexpr double kFirst = 60;   // seconds for the first engine to join
constexpr int kHalfDone = 4;    // looks in a row at which books may be wrong
constexpr double kEnding = 20;  // for all to end in good order

json stat_of(const Options& options, const std::string& pool) {
  const std::string command =
      "KVCACHED_DIR='" + pool + "' '" + options.build + "/kvcached' stat --json";
  FILE* out = ::popen(command.c_str(), "r");
  if (out == nullptr) throw std::runtime_error("kvcached stat: cannot be started");
  std::string text;
  for (int c = 0; (c = std::fgetc(out)) != EOF;) text += static_cast<char>(c);
  if (::pclose(out) != 0) throw std::runtime_error("kvcached stat: failed");
  return json::parse(text).at("pools").at(0);
}

class Chaos {
 public:
  explicit Chaos(const Options& options)
      : options_(options), random_(options.seed), players_(options, random_) {}

  void run() {
    players_.fill();
    wait_for_first();
    const auto start = Clock::now();
    while (seconds(start) < options_.seconds) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      act();
      players_.look_after(kStill);
      check_books();
    }
    finish();
  }

  void tell() const { players_.tell(); }

 private:
  // A real GPU takes seconds to make a context.
  void wait_for_first() {
    const auto start = Clock::now();
    for (std::vector<std::string> complaints;
         ledger::read_pools(players_.pool_folder(), complaints).empty(); complaints.clear()) {
      if (seconds(start) > kFirst) throw std::runtime_error("nobody joins: " + complaints.front());
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  // What holds at every moment: nobody above its maximum, and what is free covers all minimums,
  // but for what of the pool is not there.
  // Somebody who dies or is stopped at it may leave a moment's books half done.
  void check_books() {
    std::vector<std::string> complaints;
    const auto pools = ledger::read_pools(players_.pool_folder(), complaints);
    if (!complaints.empty()) throw std::runtime_error(complaints.front());
    if (pools.empty()) return;
    const std::string wrong = fault_of(pools.front());
    wrong_for_ = wrong.empty() ? 0 : wrong_for_ + 1;
    if (wrong_for_ > kHalfDone && players_.stopped() == 0) throw std::runtime_error(wrong);
  }

  static std::string fault_of(const ledger::Snapshot& books) {
    Pages floors;
    for (const auto& tenant : books.tenants) {
      if (tenant.charged > tenant.limits.max) return tenant.name + " has more than its maximum";
      const bool lives = std::any_of(
          books.members.begin(), books.members.end(),
          [&](const auto& member) { return member.alive && member.tenant == tenant.name; });
      if (lives && tenant.min_admitted) floors += tenant.limits.min.minus_clamped(tenant.charged);
    }
    // Plain memory may have taken what members hold, and what minimums were promised from.
    const Pages taken = books.charged + books.limbo;
    const Pages there = std::max(books.pool - books.shortfall, std::min(taken, books.pool));
    if (taken + books.free != there) return "the books do not add up";
    if (books.free + books.shortfall >= floors) return {};
    return std::to_string(books.free.value) + " pages are free and " +
           std::to_string(books.shortfall.value) + " not there, but " +
           std::to_string(floors.value) + " are promised";
  }

  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }

  void act() {
    // Fewer engines, fewer blows: each is to live for some seconds.
    if (below(16) >= options_.engines) return;
    const unsigned dice = below(100);
    if (dice < 10) {
      players_.kill_one();
    } else if (dice < 18) {
      // Mostly short, as a scheduler would; some as long as a debugger's.
      players_.stop_one(below(4) == 0 ? kLongestStop * below(100) / 100 : 0.001 * below(200));
    } else if (dice < 26) {
      players_.fork_one();
    } else if (dice < 29) {
      players_.end_one();
    } else if (dice < 31) {
      players_.toggle_faults();
    }
  }

  // Half of them end in good order, the others are killed: then nothing must be charged to anyone,
  // once somebody has reaped the dead.
  void finish() {
    players_.end_all(kEnding);
    players_.start_onlooker();
    const auto start = Clock::now();
    json pool;
    while (!is_free(pool = stat_of(options_, players_.pool_folder()))) {
      if (seconds(start) > 12)
        throw std::runtime_error("not all is free at the end: " + sums(pool));
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    std::printf("all %.0f MiB of the pool are free %.1f s after the last end\n",
                pool.at("pool_bytes").get<double>() / (1 << 20), seconds(start));
    players_.end_all(kEnding);
    pool = stat_of(options_, players_.pool_folder());
    if (!is_free(pool)) throw std::runtime_error("not all is free without members: " + sums(pool));
  }

  static std::string sums(const json& pool) {
    std::string out;
    for (const char* what :
         {"pool_bytes", "charged_bytes", "limbo_bytes", "free_bytes", "shortfall_bytes"})
      out += std::string(out.empty() ? "" : ", ") + what + " " + pool.at(what).dump();
    return out;
  }

  static std::uint64_t amount(const json& pool, const char* what) {
    return pool.at(what).get<std::uint64_t>();
  }

  static bool is_free(const json& pool) {
    return pool.at("charged_bytes") == 0 && pool.at("limbo_bytes") == 0 &&
           amount(pool, "free_bytes") + amount(pool, "shortfall_bytes") ==
               amount(pool, "pool_bytes");
  }

  const Options options_;
  std::mt19937_64 random_;
  int wrong_for_ = 0;  // looks
  Players players_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"engines that are killed, stopped, forked and refused memory at random"};
  Options options;
  options.seed = std::random_device{}();
  options.build = bench::build_folder();
  std::size_t engines = 0;
  app.add_option("--seconds", options.seconds)->check(CLI::Range(1, 100'000));
  app.add_option("--engines", engines, "16; on a real GPU 6")->check(CLI::Range(1, 60));
  app.add_option("--seed", options.seed);
  app.add_flag("--real", options.real, "on the GPU that is there, without failing calls");
  app.add_flag("--verbose", options.verbose, "say what players log that cannot begin");
  CLI11_PARSE(app, argc, argv);
  options.engines = engines != 0 ? engines : options.real ? 6 : 16;
  std::printf("seed %llu, %zu engines, %.0f s\n", static_cast<unsigned long long>(options.seed),
              options.engines, options.seconds);
  std::fflush(stdout);
  Chaos chaos(options);
  try {
    chaos.run();
    chaos.tell();
  } catch (const std::exception& e) {
    chaos.tell();
    std::printf("chaos: seed %llu: %s\n", static_cast<unsigned long long>(options.seed), e.what());
    return 1;
  }
  return 0;
}
