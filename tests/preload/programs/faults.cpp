// link: -lcuda
// Everything that an engine does with elastic memory, while the driver refuses one call or another.
// Arguments: the call (or several, CALL_CALL), and a file that SIM_GPU_FAULTS names; or "refuse", a
// function of libc, and how far apart the calls of it are that the library is refused
// (libraries/refusals.cpp); or "once": all of it once, whatever is refused from the start on. Says
// what went wrong beyond "out of memory", a line for each; "rounds N" at the end, or "refused N".
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kBlock = kMiB / 8;
constexpr std::size_t kBlocks = 64;
constexpr std::size_t kPinned = 2;
constexpr std::size_t kTensor = kBlocks * kBlock;

std::string round_name;
int complaints = 0;

void complain(const std::string& what) {
  std::printf("%s: %s\n", round_name.c_str(), what.c_str());
  ++complaints;
}

// The program may hear that memory is out, and nothing else.
bool done(const char* what, CUresult result) {
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_OUT_OF_MEMORY) {
    complain(what + std::string(" answers ") + std::to_string(result));
  }
  return result == CUDA_SUCCESS;
}

bool fill(CUdeviceptr at, std::size_t bytes, unsigned char value) {
  return done("fill", cuMemsetD8_v2(at, value, bytes));
}

void verify(const char* what, CUdeviceptr at, std::size_t bytes, unsigned char value) {
  std::vector<unsigned char> host(bytes);
  if (!done("copy", cuMemcpyDtoH_v2(host.data(), at, bytes))) return;
  if (host[0] != value || std::memcmp(host.data(), host.data() + 1, bytes - 1) != 0) {
    complain(what + std::string(": wrong bytes"));
  }
}

CUdeviceptr allocate(std::size_t bytes, bool tagged) {
  CUdeviceptr at = 0;
  if (tagged) kvcached_tag_push("kv");
  if (!done("alloc", cuMemAlloc_v2(&at, bytes))) at = 0;
  if (tagged) kvcached_tag_pop();
  return at;
}

void release(CUdeviceptr at) {
  if (at == 0) return;
  const CUresult result = cuMemFree_v2(at);
  if (result != CUDA_SUCCESS) complain("free answers " + std::to_string(result));
}

// Two tensors, and the blocks that this program holds of them.
class Blocks {
 public:
  explicit Blocks(unsigned char value) : value_(value) {
    for (CUdeviceptr& tensor : tensors_) tensor = allocate(kTensor, true);
    const kvcached_segment segments[] = {{tensors_[0], kBlock, kBlock},
                                         {tensors_[1], kBlock, kBlock}};
    kvcached_geometry geometry{};
    geometry.struct_size = sizeof(geometry);
    geometry.segments = segments;
    geometry.segment_count = 2;
    geometry.blocks = kBlocks;
    const kvcached_range pinned{0, kPinned};
    geometry.pinned = &pinned;
    geometry.pinned_count = 1;
    // Where it was refused, nothing of it is left in the way of the second time.
    if (kvcached_cache_create(&geometry, &cache_) != KVCACHED_OK &&
        kvcached_cache_create(&geometry, &cache_) == KVCACHED_INVALID && tensors_[0] != 0 &&
        tensors_[1] != 0)
      complain("a cache that was refused is in the way");
  }

  void acquire(std::uint64_t count, bool fill_them = true) {
    if (cache_ == nullptr) return;
    kvcached_range got[kBlocks];
    std::size_t used = kBlocks;
    const int result = kvcached_cache_acquire(cache_, count, 0, 300, got, &used);
    if (result != KVCACHED_OK && result != KVCACHED_SHORT) return;
    for (std::size_t i = 0; i < used; ++i) {
      held_.push_back(got[i]);
      if (fill_them) write(got[i]);
    }
  }
  void write(const kvcached_range& range) {
    for (std::size_t s = 0; s < 2; ++s) fill(at(s, range), range.count * kBlock, byte_of(s));
  }
  void write_all() {
    for (const auto& range : held_) write(range);
  }
  void verify_all() {
    for (const auto& range : held_) {
      for (std::size_t s = 0; s < 2; ++s) {
        verify("cache", at(s, range), range.count * kBlock, byte_of(s));
      }
    }
  }
  void release_half() {
    const std::size_t keep = held_.size() / 2;
    if (held_.empty()) return;
    if (keep == 0 && held_[0].count > 1) {
      // One range: its second half.
      const std::uint64_t first = held_[0].count / 2;
      const kvcached_range rest{held_[0].first + first, held_[0].count - first};
      if (kvcached_cache_release(cache_, &rest, 1) == KVCACHED_OK) held_[0].count = first;
      return;
    }
    if (kvcached_cache_release(cache_, held_.data() + keep, held_.size() - keep) == KVCACHED_OK) {
      held_.resize(keep);
    }
  }
  void end(bool destroy_first) {
    if (destroy_first && cache_ != nullptr) kvcached_cache_destroy(cache_);
    for (const CUdeviceptr tensor : tensors_) release(tensor);
    if (!destroy_first && cache_ != nullptr) kvcached_cache_destroy(cache_);
  }

 private:
  CUdeviceptr at(std::size_t segment, const kvcached_range& range) const {
    return tensors_[segment] + range.first * kBlock;
  }
  unsigned char byte_of(std::size_t segment) const {
    return static_cast<unsigned char>(value_ + segment);
  }

  unsigned char value_;
  CUdeviceptr tensors_[2] = {};
  kvcached_cache* cache_ = nullptr;
  std::vector<kvcached_range> held_;
};

void capture(CUdeviceptr plain, Blocks& one, Blocks& two) {
  CUstream stream = nullptr;
  CUgraph graph = nullptr;
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  if (!done("begin", cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL))) {
    cuStreamDestroy_v2(stream);
    return;
  }
  done("captured fill", cuMemsetD8Async(plain, 1, 4096, stream));
  one.release_half();
  two.acquire(8, false);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const CUresult ended = cuStreamEndCapture(stream, &graph);
  if (ended != CUDA_SUCCESS || graph == nullptr) {
    complain("end of capture answers " + std::to_string(ended));
  }
  cuGraphDestroy(graph);
  cuStreamDestroy_v2(stream);
  two.write_all();
}

void byte_ranges() {
  const CUdeviceptr at = allocate(8 * kMiB, true);
  bool grown = false;
  // What was refused the first time is there the second time, or is refused again.
  for (int attempt = 0; attempt < 2 && at != 0 && !grown; ++attempt)
    grown = kvcached_grow(at, 0, 6 * kMiB, 300) == KVCACHED_OK;
  if (grown) {
    fill(at, 6 * kMiB, 9);
    verify("range", at, 6 * kMiB, 9);
    kvcached_shrink(at, 2 * kMiB, 2 * kMiB);
    verify("range", at, 2 * kMiB, 9);
    verify("range", at + 4 * kMiB, 2 * kMiB, 9);
  }
  release(at);
}

void whole() {
  const CUdeviceptr claimed = allocate(4 * kMiB, true);
  if (claimed != 0 && kvcached_back_whole(claimed, 300) == KVCACHED_OK) {
    fill(claimed, 4 * kMiB, 7);
    verify("whole", claimed, 4 * kMiB, 7);
  }
  release(claimed);
  const CUdeviceptr guessed = allocate(6 * kMiB, false);
  if (guessed != 0 && fill(guessed, 6 * kMiB, 8)) verify("guess", guessed, 6 * kMiB, 8);
  release(guessed);
}

void everything(CUcontext context, CUdeviceptr plain) {
  Blocks one(10);
  Blocks two(20);
  one.acquire(24);
  two.acquire(12);
  capture(plain, one, two);
  one.verify_all();
  two.verify_all();
  one.acquire(30);
  one.verify_all();
  two.release_half();
  byte_ranges();
  whole();
  one.verify_all();
  two.verify_all();
  one.end(true);
  two.end(false);
  auto mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  cuThreadExchangeStreamCaptureMode(&mode);
  if (mode != CU_STREAM_CAPTURE_MODE_GLOBAL) complain("the thread's capture mode has changed");
  CUcontext now = nullptr;
  while (cuCtxGetCurrent(&now) != CUDA_SUCCESS) {
  }
  if (now != context) complain("the current context has changed");
}

// "r h m e, charged C": what the driver and the pool say that this process has.
std::string left_over() {
  static auto* counts = reinterpret_cast<void (*)(std::size_t*)>(
      dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuSimulatedCounts"));
  std::size_t now[4] = {};
  counts(now);
  std::string text;
  for (const std::size_t n : now) text += std::to_string(n) + " ";
  const std::string command = std::string(std::getenv("KVCACHED_BUILD")) + "/kvcached stat --json";
  FILE* stat = popen(command.c_str(), "r");
  char line[512];
  const char* charged = "?";
  std::string kept;
  while (stat != nullptr && std::fgets(line, sizeof(line), stat) != nullptr) {
    if (const char* found = std::strstr(line, "\"charged")) {
      kept = found;
      kept.erase(kept.find_last_not_of(",\n ") + 1);
      charged = kept.c_str();
      break;
    }
  }
  text += charged;
  if (stat != nullptr) pclose(stat);
  return text;
}

void set_faults(const char* file, const std::string& rules) {
  const std::string fresh = file + std::string(".new");
  FILE* out = std::fopen(fresh.c_str(), "w");
  std::fputs(rules.c_str(), out);
  std::fclose(out);
  std::rename(fresh.c_str(), file);
}

using Act = std::function<void()>;

// Until what is left is again what it was.
void expect_left(const std::string& clean) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  std::string left = left_over();
  while (left != clean && std::chrono::steady_clock::now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    left = left_over();
  }
  if (left != clean) complain(left.insert(0, "left over: "));
}

// One failure, later and later; and then as many in a row.
int refuse_calls(const std::string& call, const char* file, const Act& round, const Act& check) {
  constexpr int kErrors[] = {2, 999, 801, 1, 304};
  constexpr int kRounds = 20;
  int rounds = 0;
  for (int nth = 1; nth <= kRounds + 1 && complaints < 20; ++nth, ++rounds) {
    std::string rules;
    const bool storm = nth > kRounds;
    for (int i = storm ? 1 : nth; i <= (storm ? kRounds : nth); ++i) {
      std::istringstream calls(call);
      for (std::string one; std::getline(calls, one, '_');) {
        rules +=
            one + " nth=" + std::to_string(i) + " error=" + std::to_string(kErrors[i % 5]) + "\n";
      }
    }
    round_name = call + (storm ? " in a row" : " nth " + std::to_string(nth));
    set_faults(file, rules);
    round();
    set_faults(file, "");
    check();
  }
  return rounds;
}

using InjectFailures = long(const char* function, long pass, long count);

InjectFailures* inject_failures() {
  return reinterpret_cast<InjectFailures*>(dlsym(RTLD_DEFAULT, "inject_failures"));
}

// One call of the library's, later and later, until a round has none so late; and then twenty in a
// row.
int refuse_library(const std::string& function, int apart, const Act& round, const Act& check) {
  const auto refuse = inject_failures();
  int rounds = 0;
  for (const long count : {1L, 20L}) {
    for (long pass = 0; complaints < 20; pass += apart, ++rounds) {
      round_name = function + " " + std::to_string(pass) + " x " + std::to_string(count);
      refuse(function.c_str(), pass, count);
      round();
      const bool none = refuse("", 0, 0) == 0;
      check();
      if (none) break;
    }
  }
  return rounds;
}

}  // namespace

int main(int, char** arguments) {
  const std::string call = arguments[1];
  CUdeviceptr plain = 0;
  CUcontext context = use_gpu();
  cuMemAlloc_v2(&plain, 4096);
  round_name = "first";
  everything(context, plain);
  if (call == "once") {
    std::printf("refused %ld\n", inject_failures()("", 0, 0));
    return 0;
  }
  const std::string clean = left_over();
  if (!clean.starts_with("0 0 0 0 ") || !clean.ends_with(" 0")) complain("left over: " + clean);
  const Act round = [&] { everything(context, plain); };
  const Act check = [&] { expect_left(clean); };
  const int rounds = call == "refuse"
                         ? refuse_library(arguments[2], std::atoi(arguments[3]), round, check)
                         : refuse_calls(call, arguments[2], round, check);
  std::printf("rounds %d\n", rounds);
  return 0;
}
