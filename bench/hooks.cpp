// What programs pay for the library in front of the driver: the same loops in two processes at a
// time, one with the library preloaded and one without, in turns; several such pairs. Then in one
// process with the library and a rule, where the driver's own functions and the library's take
// turns: two processes differ by more than a hook takes.
//
//   build/bench/hooks [--pairs N] [--json FILE]
//
// The processes with the library have a cache, as an engine would. Calls are found by
// cuGetProcAddress, as NVIDIA's runtime finds them. Speed never decides the exit code.
#include <dlfcn.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure/cache.hpp"
#include "bench/measure/child.hpp"
#include "bench/measure/cuda.hpp"
#include "bench/measure/numbers.hpp"
#include "bench/measure/report.hpp"

namespace {

using namespace kvcached::bench;

constexpr char kPtx[] = R"(
.version 6.3
.target sm_75
.address_size 64
.visible .entry bench_nothing(.param .u32 bench_nothing_word)
{
  ret;
}
)";

using Find = void*(const char* name, const char* symbol);

void* looked_up(const char* name, const char* /*symbol*/) {
  void* out = nullptr;
  CUdriverProcAddressQueryResult found{};
  MUST(cuGetProcAddress(name, &out, 13000, CU_GET_PROC_ADDRESS_DEFAULT, &found));
  return out;
}

// Behind the library's back: by libc's dlsym, which the library stands in front of.
void* drivers_own(const char* /*name*/, const char* symbol) {
  void* libc = nullptr;
  for (const char* version : {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"})
    if (libc == nullptr) libc = dlvsym(RTLD_NEXT, "dlsym", version);
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (libc == nullptr || driver == nullptr) throw std::runtime_error("no dlsym, or no driver");
  return reinterpret_cast<decltype(&dlsym)>(libc)(driver, symbol);
}

// What the loops call.
struct Calls {
  explicit Calls(Find find) {
    const auto get = [&](auto& call, const char* name, const char* symbol) {
      void* const found = find(name, symbol);
      if (found == nullptr) throw std::runtime_error(std::string(name) + ": not in this driver");
      call = reinterpret_cast<std::remove_reference_t<decltype(call)>>(found);
    };
    get(launch, "cuLaunchKernel", "cuLaunchKernel");
    get(graph, "cuGraphLaunch", "cuGraphLaunch");
    get(h2d, "cuMemcpyHtoDAsync", "cuMemcpyHtoDAsync_v2");
    get(d2d, "cuMemcpyDtoDAsync", "cuMemcpyDtoDAsync_v2");
    get(attribute, "cuPointerGetAttribute", "cuPointerGetAttribute");
    get(malloc, "cuMemAlloc", "cuMemAlloc_v2");
    get(free, "cuMemFree", "cuMemFree_v2");
    get(malloc_async, "cuMemAllocAsync", "cuMemAllocAsync");
    get(free_async, "cuMemFreeAsync", "cuMemFreeAsync");
  }

  decltype(&::cuLaunchKernel) launch;
  decltype(&::cuGraphLaunch) graph;
  decltype(&::cuMemcpyHtoDAsync) h2d;
  decltype(&::cuMemcpyDtoDAsync) d2d;
  decltype(&::cuPointerGetAttribute) attribute;
  decltype(&::cuMemAlloc) malloc;
  decltype(&::cuMemFree) free;
  decltype(&::cuMemAllocAsync) malloc_async;
  decltype(&::cuMemFreeAsync) free_async;
};

constexpr std::size_t kRuled = 32 * kMiB;  // elastic by the rule, if there is one
constexpr char kRule[] = "size>=32MiB,size<=32MiB";

// Backs and claims a little, so that the library is at work in this process.
void have_a_cache() {
  constexpr std::uint64_t kBlock = 64 << 10;
  constexpr std::size_t kBytes = 64 * kMiB;
  kvcached_cache* const cache = make_cache(2, kBytes, kBlock);
  std::vector<kvcached_range> ranges(64);
  std::size_t n = ranges.size();
  MUST(kvcached_cache_acquire(cache, 64, 0, 5'000, ranges.data(), &n));
}

// The loops. Each answers how long one call took, in nanoseconds.
class Loops {
 public:
  Loops() {
    MUST(cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING));
    MUST(cuModuleLoadData(&module_, kPtx));
    MUST(cuModuleGetFunction(&nothing_, module_, "bench_nothing"));
    MUST(cuMemAlloc(&from_, kMiB));
    MUST(cuMemAlloc(&to_, kMiB));
    MUST(cuMemAllocHost(&host_, kMiB));
    MUST(cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (int i = 0; i < 4; ++i) launch();
    CUgraph graph = nullptr;
    MUST(cuStreamEndCapture(stream_, &graph));
    MUST(cuGraphInstantiate(&graph_, graph, 0));
    MUST(cuGraphDestroy(graph));
    keep_in_pool();
    loops_ = {
        {"launch", [this] { return burst(200, [this] { launch(); }); }},
        {"refused", [this] { return burst(200, [this] { launch_nothing(); }); }},
        {"graph", [this] { return burst(50, [this] { MUST(now_->graph(graph_, stream_)); }); }},
        {"h2d",
         [this] { return burst(50, [this] { MUST(now_->h2d(to_, host_, kSmall, stream_)); }); }},
        {"d2d",
         [this] { return burst(50, [this] { MUST(now_->d2d(to_, from_, kSmall, stream_)); }); }},
        {"attribute",
         [this] {
           return burst(200, [this] {
             CUdeviceptr at = 0;
             MUST(now_->attribute(&at, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, to_));
           });
         }},
        {"malloc",
         [this] {
           return burst(100, [this] {
             CUdeviceptr at = 0;
             MUST(now_->malloc(&at, kSmall));
             MUST(now_->free(at));
           });
         }},
        {"async", [this] {
           return burst(100, [this] {
             CUdeviceptr at = 0;
             MUST(now_->malloc_async(&at, kSmall, stream_));
             MUST(now_->free_async(at, stream_));
           });
         }}};
    for (auto& [name, loop] : loops_) loop();  // first calls load and grow things
  }

  double run(const std::string& name, int bursts, bool own) {
    const auto found = loops_.find(name);
    if (found == loops_.end()) throw std::runtime_error("no loop is named " + name);
    now_ = own ? &own_ : &looked_up_;
    std::vector<double> samples(static_cast<std::size_t>(bursts));
    for (double& sample : samples) sample = found->second();
    return median(samples);
  }

 private:
  static constexpr std::size_t kSmall = 4096;

  // What is freed stays in the pool, so that taking it again is as quick as the driver can be.
  static void keep_in_pool() {
    CUmemoryPool pool = nullptr;
    MUST(cuDeviceGetDefaultMemPool(&pool, 0));
    cuuint64_t all = UINT64_MAX;
    MUST(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
  }

  void launch() {
    MUST(now_->launch(nothing_, 1, 1, 1, 1, 1, 1, 0, stream_, parameters_, nullptr));
  }
  // The driver refuses it at once, so that what stands in front of it can be seen.
  void launch_nothing() {
    if (now_->launch(nullptr, 1, 1, 1, 1, 1, 1, 0, stream_, parameters_, nullptr) == CUDA_SUCCESS)
      throw std::runtime_error("a launch of no function succeeded");
  }
  // Few enough that the queue never fills; the GPU's own time is left out.
  template <class F>
  double burst(int calls, F call) const {
    const double ms = timed([&] {
      for (int i = 0; i < calls; ++i) call();
    });
    MUST(cuStreamSynchronize(stream_));
    return 1e6 * ms / calls;
  }

  CUstream stream_ = nullptr;
  CUmodule module_ = nullptr;
  CUfunction nothing_ = nullptr;
  CUgraphExec graph_ = nullptr;
  CUdeviceptr from_ = 0, to_ = 0;
  void* host_ = nullptr;
  unsigned word_ = 0;
  void* parameters_[1] = {&word_};
  const Calls looked_up_{looked_up}, own_{drivers_own};
  const Calls* now_ = &looked_up_;
  std::map<std::string, std::function<double()>> loops_;
};

int program_main(bool with_library) {
  const CUdevice device = open_gpu();
  std::printf("context\n");  // for the start-up: nothing may come before it
  std::fflush(stdout);
  if (with_library != KVCACHED_PRESENT())
    throw std::runtime_error(with_library ? "the library is not preloaded" : "the library is here");
  if (with_library) have_a_cache();
  CUdeviceptr ruled = 0;
  MUST(cuMemAlloc(&ruled, kRuled));
  int driver = 0;
  MUST(cuDriverGetVersion(&driver));
  Loops loops;
  std::printf("%s\n%d\n", gpu_name(device).c_str(), driver);
  std::fflush(stdout);
  std::string name, calls;
  for (int bursts = 0; std::cin >> name >> bursts >> calls;) {
    std::printf("%s %.3f\n", name.c_str(), loops.run(name, bursts, calls == "own"));
    std::fflush(stdout);
  }
  return 0;
}

struct Options {
  int pairs = 5, turns = 20;
  double seconds = 27;
  std::string json;
};

struct Measured {
  const char* loop;
  const char* what;
  int bursts;
  double goal;  // a ratio, or nanoseconds above raw; none: 0
};
constexpr Measured kMeasured[] = {
    {"launch", "cuLaunchKernel", 20, 1.01},
    {"graph", "cuGraphLaunch, 4 kernels", 20, 1.01},
    {"h2d", "copy of 4 KiB to the device", 20, 0},
    {"d2d", "copy of 4 KiB on the device", 20, 0},
    {"attribute", "cuPointerGetAttribute of a device pointer", 20, 0},
    {"malloc", "cuMemAlloc and cuMemFree of 4 KiB", 5, 0},
};

struct InOneProcess {
  const char* loop;
  const char* what;
  int bursts;
  double calls;  // of which a loop is made
  double goal;   // nanoseconds a call above raw; none: 0
};
// With the rule, launches have a door of ours; what the rule made elastic is backed by the first.
constexpr InOneProcess kInOneProcess[] = {
    {"refused", "a launch of no function, with a rule", 20, 1, 3},
    {"attribute", "cuPointerGetAttribute of plain memory", 20, 1, 0},
    {"malloc", "cuMemAlloc or cuMemFree of 4 KiB", 1, 2, 0},
    // The same code of ours, before calls short enough for it to be seen.
    {"async", "cuMemAllocAsync or cuMemFreeAsync of 4 KiB", 5, 2, 100},
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  void run() {
    const auto started = Clock::now();
    double longest = 0;
    int pairs = 0;
    for (; pairs < options_.pairs && seconds(started) + longest < options_.seconds; ++pairs) {
      longest = std::max(longest, timed([&] { pair(pairs % 2 != 0); }) / 1e3);
    }
    if (pairs < options_.pairs)
      report_->note("only " + std::to_string(pairs) + " pairs: time was up");
    tell();
    in_one_process();
    report_->write(options_.json);
  }

 private:
  struct Series {
    std::vector<double> raw, ours;
  };

  std::unique_ptr<Child> start(bool with_library, const std::string& rule = "") {
    Changes changes{{"LD_PRELOAD", with_library ? library() : ""},
                    {"KVCACHED_DIR", pool_.path()},
                    {"KVCACHED_NAME", "hooks"},
                    {"KVCACHED_MATCH", rule},
                    {"SIM_GPU_DIR", gpu_.path()}};
    const std::string kernels = build_folder() + "/sim/libbench_kernels.so";
    if (std::filesystem::exists(kernels)) changes["SIM_GPU_KERNELS"] = kernels;
    std::unique_ptr<Child> out;
    auto& series = series_[rule.empty() ? "start" : "start with a rule"];
    (with_library ? series.ours : series.raw).push_back(timed([&] {
      out = std::make_unique<Child>(
          with_library ? "ours" : "raw",
          std::vector<std::string>{own_file(), "--as", with_library ? "ours" : "raw"}, changes);
      if (out->hear(60) != "context") throw std::runtime_error("no context");
    }));
    const std::string device = out->hear(60);
    const std::string driver = out->hear(60);
    if (!report_) report_.emplace(device, std::stoi(driver));
    return out;
  }

  static std::string line_of(const char* loop, int bursts, const char* calls) {
    return std::string(loop) + ' ' + std::to_string(bursts) + ' ' + calls;
  }

  void pair(bool ours_first) {
    std::unique_ptr<Child> raw, ours;
    if (ours_first) ours = start(true);
    raw = start(false);
    if (!ours_first) ours = start(true);
    for (const Measured& m : kMeasured) {
      const std::string line = line_of(m.loop, m.bursts, "found");
      Series& series = series_[m.loop];
      for (int turn = 0; turn < options_.turns; ++turn) {
        if (turn % 2 != 0) series.ours.push_back(ours->number(line));
        series.raw.push_back(raw->number(line));
        if (turn % 2 == 0) series.ours.push_back(ours->number(line));
      }
    }
  }

  void in_one_process() {
    const std::unique_ptr<Child> child = start(true, kRule);
    for (const InOneProcess& m : kInOneProcess) {
      const std::string found = line_of(m.loop, m.bursts, "found");
      const std::string own = line_of(m.loop, m.bursts, "own");
      Series series;
      std::vector<double> more;
      for (int turn = 0; turn < 10 * options_.turns; ++turn) {
        if (turn % 2 != 0) series.ours.push_back(child->number(found));
        series.raw.push_back(child->number(own));
        if (turn % 2 == 0) series.ours.push_back(child->number(found));
        more.push_back(series.ours.back() - series.raw.back());
      }
      report_->compare(std::string(m.what) + ", one process", series.ours, series.raw, "ns");
      const double each = median(more) / m.calls;
      if (m.goal != 0) report_->goal(std::string(m.what) + ", more", each, m.goal, "ns");
    }
  }

  void tell() {
    for (const Measured& m : kMeasured) {
      const Series& s = series_[m.loop];
      report_->compare(m.what, s.ours, s.raw, "ns");
      if (m.goal != 0)
        report_->goal(std::string(m.what) + ", ratio", median(s.ours) / median(s.raw), m.goal, "x");
    }
    const Series& starts = series_["start"];
    report_->compare("from exec to a context", starts.ours, starts.raw, "ms");
  }

  const Options options_;
  Folder pool_, gpu_;
  std::optional<Report> report_;
  std::map<std::string, Series> series_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"programs with and without the library in front of the driver"};
  Options options;
  std::string role;
  app.add_option("--pairs", options.pairs, "of processes, with and without")
      ->check(CLI::Range(1, 1000));
  app.add_option("--turns", options.turns, "of each loop in a pair")->check(CLI::Range(1, 10'000));
  app.add_option("--seconds", options.seconds, "no new pair that would end after so many");
  app.add_option("--json", options.json, "append one line of results to this file");
  app.add_option("--as", role)->group("");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!role.empty()) return program_main(role == "ours");
    Bench(options).run();
  } catch (const std::exception& e) {
    if (role.empty()) {
      std::fprintf(stderr, "hooks: %s\n", e.what());
    } else {
      std::printf("error %s\n", e.what());
    }
    return 1;
  }
  return 0;
}
