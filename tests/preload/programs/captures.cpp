// link: -lcuda
// Does everything that the library has a hand in while a stream captures, in every mode and from
// every thread. A line for each combination in which the capture suffers, then "combinations N".
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"

namespace {

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kSize = 8 * kMiB;
constexpr std::size_t kBlock = kMiB / 8;

CUcontext context;
CUcontext other_context;
CUdeviceptr plain;

void leave() {
  CUcontext popped = nullptr;
  cuCtxPopCurrent_v2(&popped);
}

// As allocators do it that know of captures.
class Relaxed {
 public:
  Relaxed() { cuThreadExchangeStreamCaptureMode(&mode_); }
  ~Relaxed() { cuThreadExchangeStreamCaptureMode(&mode_); }
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;

 private:
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

CUdeviceptr tagged(std::size_t bytes) {
  CUdeviceptr at = 0;
  kvcached_tag_push("kv");
  cuMemAlloc_v2(&at, bytes);
  kvcached_tag_pop();
  return at;
}

// What the actions work on: byte ranges, and a cache with blocks.
struct Memory {
  CUdeviceptr ranges = 0;
  CUdeviceptr tensor = 0;
  CUdeviceptr late = 0;
  kvcached_cache* cache = nullptr;
  kvcached_range blocks{0, 0};

  void make() {
    ranges = tagged(kSize);
    kvcached_grow(ranges, 0, kSize / 2, 1000);
    tensor = tagged(kSize);
    const kvcached_segment segment{tensor, kBlock, kBlock};
    kvcached_geometry geometry{};
    geometry.struct_size = sizeof(geometry);
    geometry.segments = &segment;
    geometry.segment_count = 1;
    geometry.blocks = kSize / kBlock;
    kvcached_cache_create(&geometry, &cache);
    acquire(32);
  }
  void acquire(std::uint64_t count) {
    std::size_t used = 1;
    kvcached_cache_acquire(cache, count, 0, 1000, &blocks, &used);
  }
  void release() {
    if (blocks.count != 0) kvcached_cache_release(cache, &blocks, 1);
    blocks = {0, 0};
  }
  void free_all() {
    kvcached_cache_destroy(cache);
    for (const CUdeviceptr at : {ranges, tensor, late}) {
      if (at != 0) cuMemFree_v2(at);
    }
  }
};

struct Action {
  const char* name;
  std::function<void(Memory&)> run;
  bool waits = false;  // for the end of the capture, in vain: not tried in every combination
};

const std::vector<Action>& actions() {
  static const std::vector<Action> all = {
      {"nothing", [](Memory&) {}},
      {"grow", [](Memory& m) { kvcached_grow(m.ranges, 0, kSize, 1000); }},
      {"shrink", [](Memory& m) { kvcached_shrink(m.ranges, 0, kSize); }},
      {"acquire", [](Memory& m) { m.acquire(16); }},
      {"release", [](Memory& m) { m.release(); }},
      {"destroy_cache", [](Memory& m) { kvcached_cache_destroy(m.cache); }, true},
      {"allocate", [](Memory& m) { m.late = tagged(kSize); }},
      {"guess",
       [](Memory& m) {
         cuMemAlloc_v2(&m.late, 6 * kMiB);
         CUstream stream = nullptr;
         cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
         cuMemsetD8Async(m.late, 1, 64, stream);
         cuStreamDestroy_v2(stream);
       }},
      {"back_whole",
       [](Memory& m) {
         m.late = tagged(kSize);
         kvcached_back_whole(m.late, 30);
       },
       true},
      {"free",
       [](Memory& m) {
         const Relaxed relaxed;
         cuMemFree_v2(m.ranges);
         m.ranges = 0;
       }},
      {"out_of_memory",
       [](Memory& m) {
         m.release();
         const Relaxed relaxed;
         CUdeviceptr large = 0;
         if (cuMemAlloc_v2(&large, 2'000 * kMiB) == CUDA_SUCCESS) std::printf("too much memory\n");
       },
       true},
      {"info",
       [](Memory&) {
         std::size_t free = 0;
         std::size_t total = 0;
         cuMemGetInfo_v2(&free, &total);
       }},
      {"questions",
       [](Memory& m) {
         CUipcMemHandle handle;
         CUdeviceptr base = 0;
         std::size_t size = 0;
         cuIpcGetMemHandle(&handle, m.ranges);
         cuMemGetAddressRange_v2(&base, &size, m.ranges);
         kvcached_resident(m.ranges, 0, kSize, &size);
       }},
  };
  return all;
}

enum class Begin { usual, to_graph, per_thread, joined };
enum class End { end, destroy };

const char* name_of(Begin begin) {
  constexpr const char* kNames[] = {"usual", "to_graph", "per_thread", "joined"};
  return kNames[static_cast<int>(begin)];
}

// A stream of another context takes part in the capture, and a fence there would ruin it too.
void join(CUstream stream, CUstream& branch, CUevent fork) {
  cuEventRecord(fork, stream);
  cuCtxPushCurrent_v2(other_context);
  cuStreamCreate(&branch, CU_STREAM_NON_BLOCKING);
  cuStreamWaitEvent(branch, fork, 0);
  leave();
}

void join_back(CUstream stream, CUstream branch) {
  CUevent back = nullptr;
  cuCtxPushCurrent_v2(other_context);
  cuEventCreate(&back, CU_EVENT_DISABLE_TIMING);
  cuEventRecord(back, branch);
  leave();
  cuStreamWaitEvent(stream, back, 0);
  cuEventDestroy_v2(back);
}

// Begins, acts, ends. What went wrong, or nothing.
std::string capture(Begin begin, CUstreamCaptureMode mode, bool same_thread, End end,
                    const Action& action) {
  Memory memory;
  memory.make();
  Memory there;
  if (begin == Begin::joined) {
    cuCtxPushCurrent_v2(other_context);
    there.make();
    leave();
  }
  CUstream stream = nullptr;
  CUstream branch = nullptr;
  CUevent fork = nullptr;
  CUgraph graph = nullptr;
  CUgraph into = nullptr;
  const bool own = begin != Begin::per_thread;
  if (own) cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING);
  int begun = 0;
  if (begin == Begin::to_graph) {
    cuGraphCreate(&into, 0);
    begun = cuStreamBeginCaptureToGraph(stream, into, nullptr, nullptr, 0, mode);
  } else if (begin == Begin::per_thread) {
    begun = cuStreamBeginCapture_v2(CU_STREAM_PER_THREAD, mode);
    stream = CU_STREAM_PER_THREAD;
  } else {
    begun = cuStreamBeginCapture_v2(stream, mode);
  }
  std::string wrong = begun != 0 ? "begin " + std::to_string(begun) : "";
  if (begin == Begin::joined) join(stream, branch, fork);
  if (cuMemsetD8Async(plain, 1, 4096, stream) != CUDA_SUCCESS) wrong += " before";

  const auto act = [&] {
    action.run(memory);
    if (begin == Begin::joined) {
      cuCtxPushCurrent_v2(other_context);
      action.run(there);
      leave();
    }
  };
  if (same_thread) {
    act();
  } else {
    std::thread([&] {
      cuCtxSetCurrent(context);
      act();
    }).join();
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(3));  // the library's own thread
  if (branch != nullptr) join_back(stream, branch);
  auto status = CU_STREAM_CAPTURE_STATUS_NONE;
  if (cuStreamIsCapturing(stream, &status) != CUDA_SUCCESS ||
      status != CU_STREAM_CAPTURE_STATUS_ACTIVE) {
    wrong += " status " + std::to_string(status);
  }
  if (cuMemsetD8Async(plain, 2, 4096, stream) != CUDA_SUCCESS) wrong += " after";
  if (end == End::end) {
    const int ended = cuStreamEndCapture(stream, &graph);
    std::size_t nodes = 0;
    if (ended != 0 || graph == nullptr) wrong += " end " + std::to_string(ended);
    cuGraphGetNodes(graph, nullptr, &nodes);
    if (nodes < 2) wrong += " nodes " + std::to_string(nodes);
    cuGraphDestroy(graph);
  }
  if (own) cuStreamDestroy_v2(stream);
  if (branch != nullptr) cuStreamDestroy_v2(branch);
  cuEventDestroy_v2(fork);
  memory.free_all();
  if (begin == Begin::joined) {
    cuCtxPushCurrent_v2(other_context);
    there.free_all();
    leave();
  }
  return wrong;
}

}  // namespace

int main() {
  cuInit(0);
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxCreate_v2(&other_context, 0, 0);
  cuCtxSetCurrent(context);
  cuMemAlloc_v2(&plain, 4096);
  std::size_t total = 0;
  std::size_t before = 0;
  cuMemGetInfo_v2(&before, &total);
  int combinations = 0;
  const auto run = [&](Begin begin, CUstreamCaptureMode mode, bool same, End end,
                       const Action& action) {
    ++combinations;
    const std::string wrong = capture(begin, mode, same, end, action);
    if (!wrong.empty()) {
      std::printf("%s mode %d %s%s %s: %s\n", name_of(begin), mode, same ? "same" : "other",
                  end == End::end ? "" : " destroyed", action.name, wrong.c_str());
    }
  };
  for (const auto& action : actions()) {
    for (const auto begin : {Begin::usual, Begin::to_graph, Begin::per_thread, Begin::joined}) {
      for (const int mode : {0, 1, 2}) {
        if (action.waits && (mode != CU_STREAM_CAPTURE_MODE_GLOBAL || begin != Begin::joined)) {
          continue;
        }
        for (const bool same : {false, true}) {
          run(begin, static_cast<CUstreamCaptureMode>(mode), same, End::end, action);
        }
      }
    }
    if (action.waits) continue;
    run(Begin::usual, CU_STREAM_CAPTURE_MODE_GLOBAL, false, End::destroy, action);
    run(Begin::joined, CU_STREAM_CAPTURE_MODE_RELAXED, true, End::destroy, action);
  }
  // A thread that ends takes its default stream along, and the capture.
  std::thread([&] {
    cuCtxSetCurrent(context);
    cuStreamBeginCapture_v2(CU_STREAM_PER_THREAD, CU_STREAM_CAPTURE_MODE_RELAXED);
  }).join();
  std::printf("combinations %d\n", combinations);
  // No capture is open any more: nothing holds memory back.
  const CUdeviceptr last = tagged(kSize);
  kvcached_grow(last, 0, kSize, 1000);
  const CUresult freed = cuMemFree_v2(last);
  auto* count = reinterpret_cast<void (*)(std::size_t*)>(
      dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuSimulatedCounts"));
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  std::size_t counts[4] = {1, 1, 1, 1};
  while (counts[1] != 0 && std::chrono::steady_clock::now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    count(counts);
  }
  std::printf("free %d left %zu\n", freed, counts[1]);
  return 0;
}
