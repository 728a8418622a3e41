// What growth costs the thread that asks for blocks, when the library works ahead: blocks from warm
// stripes while its own thread backs more of them and lets old ones go. Beside it, what making the
// same memory by hand on that thread costs.
//
//   build/bench/warm [--seconds N] [--json FILE]
//
// Speed never decides the exit code.
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/measure/cache.hpp"
#include "bench/measure/child.hpp"
#include "bench/measure/cuda.hpp"
#include "bench/measure/numbers.hpp"
#include "bench/measure/report.hpp"

namespace {

using namespace kvcached::bench;

// 32 layers, K and V, 64 KiB a block each.
constexpr std::size_t kSegments = 64;
constexpr std::uint64_t kBlock = 64 << 10;
constexpr std::size_t kPerSegment = 64 * kMiB;
constexpr std::size_t kExtent = 2 * kMiB;
constexpr std::uint64_t kBlocks = kPerSegment / kBlock;
constexpr std::uint64_t kAhead = 128;  // 512 MiB
constexpr double kPauseUs = 300;

class Cache {
 public:
  Cache() : cache_(make_cache(kSegments, kPerSegment, kBlock, kExtent)) {}
  // The caller's part of it, in microseconds.
  double acquire(std::uint64_t blocks) {
    kvcached_range ranges[64];
    std::size_t n = std::size(ranges);
    int result = 0;
    const double ms =
        timed([&] { result = kvcached_cache_acquire(cache_, blocks, 0, 5'000, ranges, &n); });
    MUST(result);
    held_.insert(held_.end(), ranges, ranges + n);
    return 1e3 * ms;
  }
  double release() {
    const double ms =
        timed([&] { MUST(kvcached_cache_release(cache_, held_.data(), held_.size())); });
    held_.clear();
    return 1e3 * ms;
  }
  void expect(std::uint64_t blocks) { MUST(kvcached_cache_expect(cache_, blocks)); }
  std::uint64_t available() const { return kvcached_cache_available(cache_); }
  std::uint64_t backed() const {
    kvcached_cache_info info{};
    info.struct_size = sizeof info;
    MUST(kvcached_cache_describe(cache_, &info));
    return info.backed_bytes;
  }

 private:
  kvcached_cache* cache_ = nullptr;
  std::vector<kvcached_range> held_;
};

// A stripe by hand, in microseconds.
class ByHand {
 public:
  explicit ByHand(CUdevice device) : prop_(prop_of(device)), access_(access_of(device)) {
    MUST(cuMemAddressReserve(&base_, kSegments * kExtent, 0, 0, 0));
  }
  double grow() {
    const double ms = timed([&] {
      for (auto& handle : handles_) MUST(cuMemCreate(&handle, kExtent, &prop_, 0));
      for (std::size_t i = 0; i < kSegments; ++i) {
        MUST(cuMemMap(base_ + i * kExtent, kExtent, 0, handles_[i], 0));
        MUST(cuMemSetAccess(base_ + i * kExtent, kExtent, &access_, 1));
      }
    });
    for (std::size_t i = 0; i < kSegments; ++i) {
      MUST(cuMemUnmap(base_ + i * kExtent, kExtent));
      MUST(cuMemRelease(handles_[i]));
    }
    return 1e3 * ms;
  }

 private:
  CUmemAllocationProp prop_;
  CUmemAccessDesc access_;
  CUdeviceptr base_ = 0;
  CUmemGenericAllocationHandle handles_[kSegments] = {};
};

// How often the system took the processor from this thread.
long preemptions() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

void spin(double microseconds) {
  const auto start = Clock::now();
  while (1e6 * seconds(start) < microseconds) {
  }
}

void measure(double most_seconds, const std::string& json) {
  const CUdevice device = open_gpu();
  int driver = 0;
  MUST(cuDriverGetVersion(&driver));
  Report report(gpu_name(device), driver);
  Cache cache;
  ByHand by_hand(device);
  std::vector<double> raw, warm, releases;
  std::uint64_t cold = 0, aside = 0, interrupted = 0;
  const auto start = Clock::now();
  while (seconds(start) < most_seconds) {
    cache.expect(kAhead);
    const auto waited = Clock::now();
    while (cache.available() < kAhead / 2) {
      if (seconds(waited) > 5) throw std::runtime_error("nothing became warm in 5 s");
      ::usleep(1000);
    }
    // Everything but what the first stripes keep warm is backed while it is taken.
    std::uint64_t backed = cache.backed();
    for (std::uint64_t taken = 0; taken < kBlocks - 2 * kAhead; ++taken) {
      const bool ready = cache.available() != 0;
      const long preempted = preemptions();
      const double us = cache.acquire(1);
      interrupted += preempted != preemptions();
      cache.expect(kAhead);
      if (ready) {
        warm.push_back(us);
      } else {
        ++cold;
      }
      const std::uint64_t now = cache.backed();
      aside += now != backed;
      backed = now;
      spin(kPauseUs);
    }
    releases.push_back(cache.release());
    raw.push_back(by_hand.grow());
  }
  report.compare("a block, beside a stripe by hand", warm, raw, "us");
  report.goal("a block from warm stripes, p50", median(warm), 2, "us");
  report.goal("a block from warm stripes, p99", quantile(warm, 0.99), 20, "us");
  report.note(std::to_string(warm.size()) + " blocks warm, " + std::to_string(cold) +
              " waited for; backing changed " + std::to_string(aside) + " times meanwhile");
  report.note(std::to_string(interrupted) +
              " of them while the system took the processor from this thread");
  report.compare("release of all, beside a stripe by hand", releases, raw, "us");
  report.write(json);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"blocks from warm stripes while memory is mapped aside"};
  double most_seconds = 5;
  std::string json;
  app.add_option("--seconds", most_seconds)->check(CLI::Range(1, 600));
  app.add_option("--json", json, "append one line of results to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!KVCACHED_PRESENT()) {
      if (std::getenv("KVCACHED_BENCH_AGAIN") != nullptr)
        throw std::runtime_error("the library cannot be preloaded");
      ::setenv("LD_PRELOAD", library().c_str(), 1);
      ::setenv("KVCACHED_BENCH_AGAIN", "1", 1);
      ::execv(own_file().c_str(), argv);
      throw std::runtime_error("it cannot start itself");
    }
    // A pool of its own. The library reads its settings at the first CUDA call.
    const Folder pool, gpu;
    ::setenv("KVCACHED_DIR", pool.path().c_str(), 1);
    ::setenv("KVCACHED_POOL", "6GiB", 1);
    ::setenv("KVCACHED_WARM", "512MiB", 1);
    ::setenv("SIM_GPU_DIR", gpu.path().c_str(), 1);
    ::setenv("SIM_GPU_MEMORY", "16GiB", 1);
    measure(most_seconds, json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "warm: %s\n", e.what());
    return 1;
  }
  return 0;
}
