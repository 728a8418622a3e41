// Growth, release and aliasing through the public interface beside the raw driver calls that make
// the same mappings, alternating in one run. Run it with the library preloaded:
//
//   LD_PRELOAD=build/libkvcached.so build/bench/growth [--rounds N] [--json FILE]
//
// The library releases on a thread of its own while the caller goes on. So do the raw calls that
// it stands beside, on the same processor: on the caller's thread, where nothing else runs then,
// the driver takes less time for the same calls, which is told as well.
//
// Prints medians and their ratio. Exit 1 when something failed; speed never decides the exit code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/measure/cuda.hpp"
#include "bench/measure/numbers.hpp"
#include "bench/measure/processors.hpp"
#include "shim/include/kvcached.h"

namespace {

using namespace kvcached::bench;

struct Series {
  std::vector<double> raw, ours;
  std::vector<double> raw_here;  // on the caller's thread, where `raw` is not
};

void pause_ms(long ms) {
  const timespec ts = {ms / 1000, ms % 1000 * 1'000'000};
  nanosleep(&ts, nullptr);
}

// A thread that does one thing at a time for a caller who looks on.
class Aside {
 public:
  Aside() : thread_([this] { work_off(); }) {
    pthread_setname_np(thread_.native_handle(), "aside");
  }
  ~Aside() {
    give({});
    thread_.join();
  }
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  void run(std::function<void()> work) {
    give(std::move(work));
    while (!done_) pause_ms(0);
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void give(std::function<void()> work) {
    done_ = false;
    {
      const std::lock_guard lock(mutex_);
      work_ = std::move(work);
      given_ = true;
    }
    changed_.notify_one();
  }
  void work_off() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return given_; });
      given_ = false;
      if (!work_) return;
      try {
        work_();
      } catch (...) {
        failure_ = std::current_exception();
      }
      done_ = true;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool given_ = false;
  std::atomic<bool> done_{false};
  std::exception_ptr failure_;
  std::thread thread_;
};

// The mappings of a cache made by hand: segments of addresses over one scratch extent.
class Raw {
 public:
  Raw(CUdevice device, std::size_t segments, std::size_t extent, std::size_t per_segment)
      : prop_(prop_of(device)), access_(access_of(device)), extent_(extent) {
    MUST(cuMemCreate(&scratch_, extent, &prop_, 0));
    for (std::size_t s = 0; s < segments; ++s) {
      CUdeviceptr at = 0;
      MUST(cuMemAddressReserve(&at, per_segment, 0, 0, 0));
      bases_.push_back(at);
    }
    size_ = per_segment;
  }
  ~Raw() {
    for (const CUdeviceptr base : bases_) cuMemAddressFree(base, size_);
    cuMemRelease(scratch_);
  }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;

  // Aliases everything to a larger extent, as a fresh allocation of ours is until it is claimed.
  void alias_coarsely(std::size_t coarse) {
    CUmemGenericAllocationHandle large = 0;
    MUST(cuMemCreate(&large, coarse, &prop_, 0));
    for (const CUdeviceptr base : bases_)
      for (std::size_t at = 0; at < size_; at += coarse) {
        MUST(cuMemMap(base + at, coarse, 0, large, 0));
        MUST(cuMemSetAccess(base + at, coarse, &access_, 1));
      }
    MUST(cuMemRelease(large));
  }
  void unalias_coarsely(std::size_t coarse) {
    for (const CUdeviceptr base : bases_)
      for (std::size_t at = 0; at < size_; at += coarse) MUST(cuMemUnmap(base + at, coarse));
  }
  void alias() {
    for (const CUdeviceptr base : bases_)
      for (std::size_t at = 0; at < size_; at += extent_) map(base + at, scratch_);
  }
  void unalias() {
    for (const CUdeviceptr base : bases_)
      for (std::size_t at = 0; at < size_; at += extent_) MUST(cuMemUnmap(base + at, extent_));
  }
  // One extent in each segment at `offset`: create all, then replace the aliases.
  void grow(std::size_t offset) {
    handles_.assign(bases_.size(), 0);
    for (auto& h : handles_) MUST(cuMemCreate(&h, extent_, &prop_, 0));
    for (std::size_t s = 0; s < bases_.size(); ++s) {
      MUST(cuMemUnmap(bases_[s] + offset, extent_));
      map(bases_[s] + offset, handles_[s]);
    }
  }
  void shrink(std::size_t offset) {
    for (std::size_t s = 0; s < bases_.size(); ++s) {
      MUST(cuMemUnmap(bases_[s] + offset, extent_));
      map(bases_[s] + offset, scratch_);
      MUST(cuMemRelease(handles_[s]));
    }
  }

 private:
  void map(CUdeviceptr at, CUmemGenericAllocationHandle handle) {
    MUST(cuMemMap(at, extent_, 0, handle, 0));
    MUST(cuMemSetAccess(at, extent_, &access_, 1));
  }

  CUmemAllocationProp prop_;
  CUmemAccessDesc access_;
  std::size_t extent_, size_ = 0;
  CUmemGenericAllocationHandle scratch_ = 0;
  std::vector<CUdeviceptr> bases_;
  std::vector<CUmemGenericAllocationHandle> handles_;
};

constexpr std::uint64_t kBlock = 64 << 10;

// The same mappings through the interface. Extents of one size only: pinning the small first
// stripes leaves those of the full size.
class Ours {
 public:
  Ours(std::size_t segments, std::size_t extent, std::size_t per_segment) {
    for (std::size_t s = 0; s < segments; ++s) {
      MUST(kvcached_tag_push("kv"));
      CUdeviceptr p = 0;
      MUST(cuMemAlloc(&p, per_segment));
      MUST(kvcached_tag_pop());
      segments_.push_back({p, kBlock, kBlock});
    }
    geometry_.struct_size = sizeof geometry_;
    geometry_.segments = segments_.data();
    geometry_.segment_count = segments_.size();
    geometry_.blocks = per_segment / kBlock;
    geometry_.stripe_bytes = extent;
  }
  ~Ours() {
    if (cache_ != nullptr) kvcached_cache_destroy(cache_);
    for (const auto& s : segments_) cuMemFree(s.base);
  }
  Ours(const Ours&) = delete;
  Ours& operator=(const Ours&) = delete;

  void claim() { MUST(kvcached_cache_create(&geometry_, &cache_)); }
  void destroy() {
    MUST(kvcached_cache_destroy(cache_));
    cache_ = nullptr;
  }
  // Takes the stripes up to the first one of full size, for good.
  void take_small_stripes(std::uint64_t full_blocks) {
    std::size_t n = 0;
    MUST(kvcached_cache_stripes(cache_, nullptr, &n));
    std::vector<kvcached_range> stripes(n);
    MUST(kvcached_cache_stripes(cache_, stripes.data(), &n));
    std::uint64_t small = 0;
    for (const auto& s : stripes) {
      if (s.count >= full_blocks) break;
      small += s.count;
    }
    if (small != 0) acquire(small);
  }
  std::vector<kvcached_range> acquire(std::uint64_t blocks) {
    std::vector<kvcached_range> ranges(4096);
    std::size_t n = ranges.size();
    MUST(kvcached_cache_acquire(cache_, blocks, KVCACHED_WHOLE_STRIPES, 10'000, ranges.data(), &n));
    ranges.resize(n);
    return ranges;
  }
  void release(const std::vector<kvcached_range>& ranges) {
    MUST(kvcached_cache_release(cache_, ranges.data(), ranges.size()));
  }
  std::uint64_t backed() const {
    kvcached_cache_info info{};
    info.struct_size = sizeof info;
    MUST(kvcached_cache_describe(cache_, &info));
    return info.backed_bytes;
  }

 private:
  std::vector<kvcached_segment> segments_;
  kvcached_geometry geometry_{};
  kvcached_cache* cache_ = nullptr;
};

// A stripe of `extent` bytes in each of `segments` segments, grown and released again.
Series grow_series(CUdevice device, std::size_t segments, std::size_t extent, int rounds,
                   Series& release) {
  Series out;
  const std::size_t per_segment = 8 * extent;
  Raw raw(device, segments, extent, per_segment);
  raw.alias();
  Ours ours(segments, extent, per_segment);
  ours.claim();
  const std::uint64_t blocks = extent / kBlock;
  ours.take_small_stripes(blocks);
  const std::uint64_t base = ours.backed();
  Aside aside;
  if (!run_aside({"aside", "kvcached"}))
    std::puts("the threads that release run where they like: figures of releases are less certain");
  for (int i = 0; i < rounds; ++i) {
    const std::size_t at = static_cast<std::size_t>(i % 8) * extent;
    out.raw.push_back(timed([&] { raw.grow(at); }));
    if (i % 2 == 0) {
      release.raw.push_back(timed([&] { aside.run([&] { raw.shrink(at); }); }));
    } else {
      release.raw_here.push_back(timed([&] { raw.shrink(at); }));
    }
    std::vector<kvcached_range> taken;
    out.ours.push_back(timed([&] { taken = ours.acquire(blocks); }));
    release.ours.push_back(timed([&] {
      ours.release(taken);
      // Released means: gone from the process, not merely handed over.
      while (ours.backed() > base) pause_ms(0);
    }));
  }
  raw.unalias();
  return out;
}

// The size of the aliases of an allocation that nobody has claimed yet.
std::size_t coarse_alias(CUdevice device) {
  std::size_t total = 0;
  MUST(cuDeviceTotalMem(&total, device));
  return std::clamp(std::bit_floor(total / 512), 2 * kMiB, 256 * kMiB);
}

// Claiming an allocation: its coarse aliases are replaced by those of its stripes' size. `whole`
// adds the allocation itself, beside aliasing at the stripes' size from the start.
Series alias_series(CUdevice device, std::size_t bytes, std::size_t extent, int rounds,
                    Series& whole) {
  Series out;
  const std::size_t coarse = coarse_alias(device);
  for (int i = 0; i < rounds; ++i) {
    {
      Raw raw(device, 1, extent, bytes);
      whole.raw.push_back(timed([&] { raw.alias(); }));
      raw.unalias();
      raw.alias_coarsely(coarse);
      out.raw.push_back(timed([&] {
        raw.unalias_coarsely(coarse);
        raw.alias();
      }));
      raw.unalias();
    }
    std::optional<Ours> ours;
    const double made = timed([&] { ours.emplace(1, extent, bytes); });
    out.ours.push_back(timed([&] { ours->claim(); }));
    whole.ours.push_back(made + out.ours.back());
  }
  return out;
}

nlohmann::json report(const char* what, const Series& s) {
  const double raw = quantile(s.raw, 0.5), ours = quantile(s.ours, 0.5);
  std::printf("%-44s ratio %5.3f   raw %8.3f ms   ours %8.3f ms   (p99 %8.3f / %8.3f)\n", what,
              ours / raw, raw, ours, quantile(s.raw, 0.99), quantile(s.ours, 0.99));
  nlohmann::json out{{"what", what},
                     {"ratio", ours / raw},
                     {"raw_ms", raw},
                     {"ours_ms", ours},
                     {"raw_p99_ms", quantile(s.raw, 0.99)},
                     {"ours_p99_ms", quantile(s.ours, 0.99)},
                     {"rounds", s.ours.size()}};
  if (!s.raw_here.empty()) {
    const double here = quantile(s.raw_here, 0.5);
    std::printf("%-44s               raw %8.3f ms\n", "  on the caller's thread", here);
    out["raw_on_callers_thread_ms"] = here;
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"growth, release and aliasing beside the raw driver calls"};
  int rounds = 40;
  std::size_t alias_gib = 64;
  std::string json_file;
  app.add_option("--rounds", rounds)->check(CLI::Range(1, 100'000));
  app.add_option("--alias-gib", alias_gib)->check(CLI::Range(1, 1024));
  app.add_option("--json", json_file, "append one line of results to this file");
  CLI11_PARSE(app, argc, argv);
  if (!KVCACHED_PRESENT()) {
    std::fprintf(stderr, "growth: run it with the library preloaded\n");
    return 1;
  }
  // Released memory is to leave at once here. The library reads its settings at the first CUDA
  // call.
  setenv("KVCACHED_WARM", "0", 1);
  try {
    const CUdevice device = open_gpu();
    const std::string name = gpu_name(device);
    int driver = 0;
    MUST(cuDriverGetVersion(&driver));
    const std::time_t now = std::time(nullptr);
    char date[32] = {};
    std::strftime(date, sizeof date, "%F", std::gmtime(&now));
    std::printf("%s, CUDA driver %d.%d, %s\n", name.c_str(), driver / 1000, driver % 1000 / 10,
                date);

    nlohmann::json all{{"device", name}, {"cuda_driver", driver}, {"date", date}};
    auto& results = all["results"] = nlohmann::json::array();
    struct Shape {
      std::size_t segments, mib;
      const char *grow, *release;
    };
    for (const Shape shape :
         {Shape{64, 2, "grow 64 segments x 2 MiB", "release 64 segments x 2 MiB"},
          Shape{64, 8, "grow 64 segments x 8 MiB", "release 64 segments x 8 MiB"},
          Shape{64, 32, "grow 64 segments x 32 MiB (2 GiB)",
                "release 64 segments x 32 MiB (2 GiB)"},
          Shape{16, 32, "grow 16 segments x 32 MiB", "release 16 segments x 32 MiB"}}) {
      Series release;
      const Series grow = grow_series(device, shape.segments, shape.mib * kMiB, rounds, release);
      results.push_back(report(shape.grow, grow));
      results.push_back(report(shape.release, release));
    }
    const std::string size = std::to_string(alias_gib) + " GiB at 32 MiB";
    Series whole;
    const Series alias =
        alias_series(device, alias_gib * 1024 * kMiB, 32 * kMiB, std::min(rounds, 10), whole);
    results.push_back(report(("alias " + size + ", claim").c_str(), alias));
    results.push_back(report(("alias " + size + ", malloc and claim").c_str(), whole));
    if (!json_file.empty()) std::ofstream(json_file, std::ios::app) << all.dump() << '\n';
  } catch (const std::exception& e) {
    std::fprintf(stderr, "growth: %s\n", e.what());
    return 1;
  }
  return 0;
}
