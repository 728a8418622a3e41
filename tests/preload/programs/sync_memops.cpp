// link: -lcuda
// Sets CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, and says which calls wait for what they have begun: each
// is made while something holds its stream. Arguments: by which way the functions are called
// (linked, looked_up), and what is done. Run with and without the library, the output of "plain"
// must be the same.
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kSize = 8 << 20;

void* handle = RTLD_DEFAULT;

template <class F>
F* found(F* /*linked*/, const char* symbol) {
  return reinterpret_cast<F*>(dlsym(handle, symbol));
}
#define CALL(symbol) found(&(symbol), #symbol)

void say(const char* what, long long value) { std::printf("%s %lld\n", what, value); }

CUresult set(CUdeviceptr at, unsigned on) {
  return cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at);
}

void read(CUdeviceptr at) {
  unsigned one = 0;
  unsigned many = 0;
  CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_SYNC_MEMOPS};
  void* data[] = {&many};
  say("read", cuPointerGetAttribute(&one, which[0], at));
  say("read many", cuPointerGetAttributes(1, which, data, at));
  std::printf("value %u %u\n", one, many);
}

// Keeps a stream from going on.
class Hold {
 public:
  explicit Hold(CUstream stream) {
    cuStreamCreate(&side_, CU_STREAM_NON_BLOCKING);
    cuMemAlloc_v2(&word_, 64);
    cuMemsetD8Async(word_, 0, 64, side_);
    cuStreamSynchronize(side_);
    cuCtxGetCurrent(&context_);
    cuStreamWaitValue32(stream, word_, 1, CU_STREAM_WAIT_VALUE_EQ);
  }
  ~Hold() {
    cuStreamSynchronize(side_);
    cuStreamDestroy_v2(side_);
    cuMemFree_v2(word_);
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  // Any thread.
  void end() const {
    cuCtxSetCurrent(context_);
    cuStreamWriteValue32(side_, word_, 1, 0);
  }

 private:
  CUcontext context_ = nullptr;
  CUstream side_ = nullptr;
  CUdeviceptr word_ = 0;
};

// The stream goes on when the call has returned, or after a while, so that one that waits returns.
template <class F>
void waits(const char* what, const Hold& hold, CUstream stream, F call) {
  std::atomic<bool> returned{false};
  std::thread other([&] {
    for (int i = 0; i < 200 && !returned; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    hold.end();
  });
  const CUresult result = call();
  auto mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  cuThreadExchangeStreamCaptureMode(&mode);
  const bool done = cuStreamQuery(stream) == CUDA_SUCCESS;
  returned = true;
  other.join();
  cuStreamSynchronize(stream);
  cuThreadExchangeStreamCaptureMode(&mode);
  std::printf("%s %d waits %d\n", what, static_cast<int>(result), done);
}

template <class F>
void waits(const char* what, CUstream stream, F call) {
  const Hold hold(stream);
  waits(what, hold, stream, call);
}

// Every byte of the first half is `first`, of the second `second`.
void contents(CUdeviceptr at, unsigned char first, unsigned char second) {
  std::vector<unsigned char> host(kSize);
  cuMemcpyDtoH_v2(host.data(), at, kSize);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < kSize; ++i) wrong += host[i] != (i < kSize / 2 ? first : second);
  std::printf("wrong bytes %zu\n", wrong);
}

CUdeviceptr allocate() {
  CUdeviceptr at = 0;
  say("alloc", cuMemAlloc_v2(&at, kSize));
  return at;
}

void every_call(CUdeviceptr at, CUdeviceptr other) {
  auto* const legacy = CU_STREAM_LEGACY;
  waits("fill", legacy, [=] { return CALL(cuMemsetD8_v2)(at, 1, kSize); });
  waits("fill inside", legacy, [=] { return CALL(cuMemsetD32_v2)(at + kSize / 2, 0x02020202, 4); });
  waits("fill rows", legacy,
        [=] { return CALL(cuMemsetD2D8_v2)(at + kSize / 2, kSize / 8, 2, kSize / 8, 4); });
  contents(at, 1, 2);
  waits("copy to other", legacy, [=] { return CALL(cuMemcpyDtoD_v2)(other, at, kSize); });
  waits("copy from other", legacy, [=] { return CALL(cuMemcpy)(at, other, kSize / 2); });
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  waits("copy between peers", legacy,
        [=] { return CALL(cuMemcpyPeer)(other, context, at + kSize / 2, context, kSize / 2); });
  contents(other, 2, 2);
  CUDA_MEMCPY2D rows{};
  rows.srcMemoryType = rows.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  rows.srcDevice = at;
  rows.dstDevice = other;
  rows.WidthInBytes = rows.srcPitch = rows.dstPitch = kSize / 8;
  rows.Height = 4;
  waits("copy rows", legacy, [&] { return CALL(cuMemcpy2D_v2)(&rows); });
  contents(other, 1, 2);
  // Those that do not wait.
  waits("fill later", legacy, [=] { return CALL(cuMemsetD8Async)(at, 3, kSize, legacy); });
  waits("copy later", legacy, [=] { return CALL(cuMemcpyDtoDAsync_v2)(at, other, kSize, legacy); });
  waits("fill other", legacy, [=] { return CALL(cuMemsetD8_v2)(other, 1, kSize); });
  waits("copy others", legacy,
        [=] { return CALL(cuMemcpyDtoD_v2)(other, other + kSize / 2, kSize / 2); });
  waits("fill nothing", legacy, [=] { return CALL(cuMemsetD8_v2)(at, 1, 0); });
  // Refused: by the driver, as ever.
  say("fill askew", CALL(cuMemsetD16_v2)(at + 1, 1, 2));
  contents(at, 1, 2);
}

void plain() {
  CUdeviceptr at = allocate();
  const CUdeviceptr other = allocate();
  auto* const legacy = CU_STREAM_LEGACY;
  auto* const own = CU_STREAM_PER_THREAD;
  const auto fill = [&] { return CALL(cuMemsetD8_v2)(at, 1, kSize); };
  const auto fill_own = [&] { return CALL(cuMemsetD8_v2_ptds)(at, 1, kSize); };
  read(at);
  waits("before", legacy, fill);
  say("set nothing", cuPointerSetAttribute(nullptr, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at));
  say("set", set(at + kSize - 1, 7));
  read(at);
  read(at + 4096);
  every_call(at, other);
  waits("fill by thread's", own, fill_own);
  say("clear", set(at, 0));
  read(at);
  waits("cleared", legacy, fill);
  waits("cleared, thread's", own, fill_own);
  waits("what was begun before", legacy, [&] {
    fill();
    return set(at, 1);
  });
  waits("what the thread has begun before", own, [&] {
    CALL(cuMemsetD8_v2_ptds)(other, 1, kSize);
    return set(other, 1);
  });
  say("free", cuMemFree_v2(at));
  say("set free memory", set(at, 1));
  at = allocate();
  read(at);
  waits("another", legacy, fill);
  // Whoever asks for these has set the attribute.
  CUDA_POINTER_ATTRIBUTE_P2P_TOKENS tokens{};
  say("tokens", cuPointerGetAttribute(&tokens, CU_POINTER_ATTRIBUTE_P2P_TOKENS, at));
  read(at);
  waits("after tokens", legacy, fill);
  say("free", cuMemFree_v2(at));
  say("free", cuMemFree_v2(other));
}

// Captures go on, whatever forbids or would ruin what the library does beside them.
void captures() {
  const CUdeviceptr at = allocate();
  const CUdeviceptr other = allocate();
  const auto mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  CUgraph graph = nullptr;
  CUstream apart = nullptr;
  CUstream blocking = nullptr;
  cuStreamCreate(&apart, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&blocking, CU_STREAM_DEFAULT);
  say("set", set(at, 1));
  {
    const Hold hold(CU_STREAM_LEGACY);
    say("begin apart", cuStreamBeginCapture_v2(apart, mode));
    waits("fill", hold, CU_STREAM_LEGACY, [=] { return CALL(cuMemsetD8_v2)(at, 1, kSize); });
    say("end", cuStreamEndCapture(apart, &graph));
  }
  say("begin thread's", cuStreamBeginCapture_v2(CU_STREAM_PER_THREAD, mode));
  say("fill", CALL(cuMemsetD8_v2_ptds)(at, 1, kSize));
  say("end", cuStreamEndCapture(CU_STREAM_PER_THREAD, &graph));
  say("begin blocking", cuStreamBeginCapture_v2(blocking, mode));
  say("set", set(other, 1));
  say("end", cuStreamEndCapture(blocking, &graph));
  read(other);
}

// Memory of a device whose context is not current when the attribute is set.
void elsewhere() {
  CUcontext here = nullptr;
  CUcontext there = nullptr;
  cuCtxGetCurrent(&here);
  cuDevicePrimaryCtxRetain(&there, 1);
  cuCtxSetCurrent(there);
  const CUdeviceptr at = allocate();
  waits("what was begun there", CU_STREAM_LEGACY, [=] {
    CALL(cuMemsetD8_v2)(at, 1, kSize);
    cuCtxSetCurrent(here);
    const CUresult result = set(at, 1);
    cuCtxSetCurrent(there);
    return result;
  });
}

// Memory that is claimed by a tag and backed whole, whatever rule there is.
void tagged() {
  kvcached_tag_push("kv");
  const CUdeviceptr at = allocate();
  kvcached_tag_pop();
  say("back", kvcached_back_whole(at, 1000));
  say("set", set(at, 1));
  read(at);
  waits("fill", CU_STREAM_LEGACY, [=] { return CALL(cuMemsetD8_v2)(at, 1, kSize); });
}

}  // namespace

int main(int, char** arguments) {
  use_gpu();
  if (std::strcmp(arguments[1], "looked_up") == 0) handle = dlopen("libcuda.so.1", RTLD_NOW);
  const std::string what = arguments[2];
  if (what == "plain") plain();
  if (what == "captures") captures();
  if (what == "tagged") tagged();
  if (what == "elsewhere") elsewhere();
  cuDevicePrimaryCtxRelease(0);  // ends the thread that the simulated driver made for that stream
  return 0;
}
