// How long a tenant waits for 2 GiB that a peer has: 64 segments, one extent in each. Three
// processes: the peer and the waiter behind the library, in a pool that holds what they keep and
// 2 GiB for one of them; and one that makes the same mappings by hand.
//
//   build/bench/handover [--rounds N] [--extent-mib N] [--json FILE]
//
// Ours is measured from the waiter's call until all of it is acquired, mapped: the peer hears of
// it, fences, unmaps and releases, the waiter creates and maps. Raw is releasing 2 GiB and making
// them anew, in one process that need not tell anybody. Speed never decides the exit code.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "bench/measure/cache.hpp"
#include "bench/measure/child.hpp"
#include "bench/measure/cuda.hpp"
#include "bench/measure/numbers.hpp"
#include "bench/measure/report.hpp"

namespace {

using namespace kvcached::bench;

constexpr std::size_t kSegments = 64;
constexpr std::uint64_t kBlock = 64 << 10;
constexpr std::size_t kMoved = 2048 * kMiB;
constexpr std::size_t kMovedBySegment = kMoved / kSegments;
constexpr int kStepMs = 5;
constexpr double kGoalMs = 15;

// A cache of 64 tensors. Stripes double up to the extent; those below it are taken for good, so
// that what moves has one size.
class Tenant {
 public:
  explicit Tenant(std::size_t extent) {
    // Stripes have 2, 2, 4, … MiB in each segment: all below the extent are as large as one of it.
    const std::size_t per_segment = extent + 2 * kMovedBySegment;
    cache_ = make_cache(kSegments, per_segment, kBlock, extent);
    if (acquire(extent / kBlock, 10'000) != extent / kBlock)
      throw std::runtime_error("the pool did not give what each tenant keeps");
    held_.clear();
    MUST(cuMemAlloc(&work_, 2 * kMiB));
  }

  std::uint64_t acquire(std::uint64_t blocks, std::int64_t wait_ms) {
    std::vector<kvcached_range> ranges(1024);
    std::size_t n = ranges.size();
    const int result =
        kvcached_cache_acquire(cache_, blocks, KVCACHED_WHOLE_STRIPES, wait_ms, ranges.data(), &n);
    if (result != KVCACHED_OK && result != KVCACHED_SHORT) must(result, "kvcached_cache_acquire");
    std::uint64_t got = 0;
    for (std::size_t i = 0; i < n; ++i) got += ranges[i].count;
    held_.insert(held_.end(), ranges.begin(), ranges.begin() + static_cast<std::ptrdiff_t>(n));
    return got;
  }
  void release() {
    if (!held_.empty()) MUST(kvcached_cache_release(cache_, held_.data(), held_.size()));
    held_.clear();
  }
  // What an engine without an adapter does at its safe point.
  void step() {
    MUST(cuMemsetD8Async(work_, 1, 2 * kMiB, nullptr));
    if (kvcached_cache_pressure(cache_) != 0) release();
  }
  void expect(std::uint64_t blocks) { MUST(kvcached_cache_expect(cache_, blocks)); }
  kvcached_cache_info info() const {
    kvcached_cache_info out{};
    out.struct_size = sizeof out;
    MUST(kvcached_cache_describe(cache_, &out));
    return out;
  }

 private:
  kvcached_cache* cache_ = nullptr;
  CUdeviceptr work_ = 0;
  std::vector<kvcached_range> held_;
};

// Whether standard input has a line or its end before the step is over.
bool line_waits() {
  pollfd in{0, POLLIN, 0};
  return std::cin.rdbuf()->in_avail() > 0 || ::poll(&in, 1, kStepMs) > 0;
}

int tenant_main(std::size_t extent) {
  const CUdevice device = open_gpu();
  int driver = 0;
  MUST(cuDriverGetVersion(&driver));
  if (!KVCACHED_PRESENT()) throw std::runtime_error("the library is not preloaded");
  Tenant tenant(extent);
  std::printf("%s\n%d\n", gpu_name(device).c_str(), driver);
  std::fflush(stdout);
  bool busy = false;
  for (std::string line;;) {
    if (busy && !line_waits()) {
      tenant.step();
      continue;
    }
    if (!std::getline(std::cin, line)) break;
    std::istringstream words(line);
    std::string verb;
    std::uint64_t number = 0;
    words >> verb >> number;
    double answer = 0;
    if (verb == "take") {
      std::uint64_t got = 0;
      answer = timed([&] { got = tenant.acquire(number, 10'000); });
      if (got < number)
        throw std::runtime_error("got " + std::to_string(got) + " blocks of " +
                                 std::to_string(number) + " within 10 s");
    } else if (verb == "give") {
      tenant.release();
    } else if (verb == "expect") {
      tenant.expect(number);
    } else if (verb == "busy") {
      busy = number != 0;
    } else if (verb == "ready") {
      answer = static_cast<double>(tenant.info().ready);
    } else if (verb == "backed") {
      answer = static_cast<double>(tenant.info().backed_bytes);
    }
    std::printf("%s %.6f\n", verb.c_str(), answer);
    std::fflush(stdout);
  }
  return 0;
}

// Each line is answered with the milliseconds that it took to release 2 GiB and to make them anew.
int raw_main(std::size_t extent) {
  const CUdevice device = open_gpu();
  const CUmemAllocationProp prop = prop_of(device);
  const CUmemAccessDesc access = access_of(device);
  const std::size_t count = kMoved / extent;
  std::vector<CUmemGenericAllocationHandle> handles(count);
  CUdeviceptr base = 0;
  MUST(cuMemAddressReserve(&base, kMoved, 0, 0, 0));
  const auto grow = [&] {
    for (auto& handle : handles) MUST(cuMemCreate(&handle, extent, &prop, 0));
    for (std::size_t i = 0; i < count; ++i) {
      MUST(cuMemMap(base + i * extent, extent, 0, handles[i], 0));
      MUST(cuMemSetAccess(base + i * extent, extent, &access, 1));
    }
  };
  grow();
  std::printf("here\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const double took = timed([&] {
      for (std::size_t i = 0; i < count; ++i) {
        MUST(cuMemUnmap(base + i * extent, extent));
        MUST(cuMemRelease(handles[i]));
      }
      grow();
    });
    std::printf("took %.6f\n", took);
    std::fflush(stdout);
  }
  return 0;
}

struct Options {
  int rounds = 40;
  std::size_t extent_mib = 32;
  double seconds = 22;
  std::string json;
};

void until(const std::string& what, const std::function<bool()>& holds) {
  const auto start = Clock::now();
  while (!holds()) {
    if (seconds(start) > 10) throw std::runtime_error("waited 10 s until " + what);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), started_(Clock::now()) {}

  void run() {
    Child raw("raw", command("raw"), changes({{"LD_PRELOAD", ""}}));
    raw.hear(60);
    case_("idle", raw, false, options_.seconds * 0.5);
    case_("busy", raw, true, options_.seconds);
    report_->write(options_.json);
  }

 private:
  std::vector<std::string> command(const std::string& role) const {
    return {own_file(), "--as", role, "--extent-mib", std::to_string(options_.extent_mib)};
  }
  Changes changes(Changes more) const {
    // What each keeps, 2 GiB for one of the two, and less than another stripe.
    const std::size_t pool = 2 * kSegments * options_.extent_mib + 2048 + 192;
    Changes out{{"LD_PRELOAD", library()},
                {"KVCACHED_DIR", pool_.path()},
                {"KVCACHED_POOL", std::to_string(pool) + "MiB"},
                {"SIM_GPU_DIR", gpu_.path()},
                {"SIM_GPU_MEMORY", "16GiB"}};
    for (const auto& [key, value] : more) out[key] = value;
    return out;
  }

  void case_(const std::string& what, Child& raw, bool busy, double until_s) {
    Child peer("peer", command("tenant"), changes({{"KVCACHED_NAME", "peer-" + what}}));
    const std::string device = peer.hear(60);
    const int driver = std::stoi(peer.hear(60));
    // A busy peer gives only what is above its share: the waiter is entitled to all it asks for.
    Child waiter("waiter", command("tenant"),
                 changes({{"KVCACHED_NAME", "waiter-" + what},
                          {"KVCACHED_WARM", "0"},
                          {"KVCACHED_WEIGHT", busy ? "10000" : "100"}}));
    waiter.hear(60);
    waiter.hear(60);
    if (!report_) report_.emplace(device, driver);
    const double kept = waiter.number("backed");
    const std::string blocks = std::to_string(kMovedBySegment / kBlock);
    std::vector<double> ours, by_hand;
    // The first round is for nothing: the driver may still be freeing what ended before.
    for (bool counts = false; static_cast<int>(ours.size()) < options_.rounds &&
                              (!counts || seconds(started_) < until_s);
         counts = true) {
      peer.ask("take " + blocks);
      if (busy) {
        peer.ask("busy 1");
        // At any time of its step.
        std::this_thread::sleep_for(std::chrono::microseconds(10'000 + 137 * ours.size() * 5));
      } else {
        peer.ask("expect " + blocks);
        peer.ask("give");
        const double ready = peer.number("ready");
        if (ready < kMovedBySegment / kBlock)
          throw std::runtime_error("the idle peer kept only " + std::to_string(ready) + " blocks");
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      const double took = waiter.number("take " + blocks);
      const double again = raw.number("again");
      if (counts) {
        ours.push_back(took);
        by_hand.push_back(again);
      }
      peer.ask("busy 0");
      peer.ask("give");
      peer.ask("expect 0");
      waiter.ask("give");
      until("the waiter had given everything back",
            [&] { return waiter.number("backed") <= kept; });
    }
    if (ours.empty()) throw std::runtime_error("no time left for the " + what + " peer");
    report_->compare("2 GiB from " + std::string(busy ? "a busy" : "an idle") + " peer", ours,
                     by_hand, "ms");
    const std::string name = what + " peer";
    report_->goal(name + ", p50", median(ours), busy ? kGoalMs + kStepMs : kGoalMs, "ms");
    report_->goal(name + ", p99", quantile(ours, 0.99), busy ? kGoalMs + kStepMs : kGoalMs, "ms");
    if (static_cast<int>(ours.size()) < options_.rounds)
      report_->note("only " + std::to_string(ours.size()) + " rounds: time was up");
  }

  const Options options_;
  const Clock::time_point started_;
  Folder pool_, gpu_;
  std::optional<Report> report_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"2 GiB from a peer, beside the raw driver calls"};
  Options options;
  std::string role;
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 10'000));
  app.add_option("--extent-mib", options.extent_mib, "largest extent, a power of two")
      ->check(CLI::IsMember({2, 4, 8, 16, 32}));
  app.add_option("--seconds", options.seconds, "no new round after so many");
  app.add_option("--json", options.json, "append one line of results to this file");
  app.add_option("--as", role)->group("");
  CLI11_PARSE(app, argc, argv);
  try {
    if (role == "tenant") return tenant_main(options.extent_mib * kMiB);
    if (role == "raw") return raw_main(options.extent_mib * kMiB);
    Bench(options).run();
  } catch (const std::exception& e) {
    if (role.empty()) {
      std::fprintf(stderr, "handover: %s\n", e.what());
    } else {
      std::printf("error %s\n", e.what());
    }
    return 1;
  }
  return 0;
}
