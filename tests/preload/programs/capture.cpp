// link: -lcuda
// Gives elastic memory back while a stream captures: the capture must come out whole, and the
// memory must leave once it is over, however it ends. Argument: how it ends.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kSize = 16 << 20;

// What the driver itself says, behind the library's back.
std::size_t really_free() {
  using Dlsym = void* (*)(void*, const char*);
  static auto real = reinterpret_cast<decltype(&cuMemGetInfo_v2)>(reinterpret_cast<Dlsym>(dlvsym(
      RTLD_NEXT, "dlsym", "GLIBC_2.34"))(dlopen("libcuda.so.1", RTLD_NOW), "cuMemGetInfo_v2"));
  std::size_t free = 0;
  std::size_t total = 0;
  real(&free, &total);
  return free;
}

std::size_t resident(CUdeviceptr at) {
  std::size_t bytes = 0;
  kvcached_resident(at, 0, kSize, &bytes);
  return bytes;
}

bool comes_back(std::size_t wanted, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (really_free() < wanted && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return really_free() >= wanted;
}

void end(const char* way, CUstream stream) {
  CUgraph graph = nullptr;
  if (std::strcmp(way, "destroy") == 0) {
    std::printf("destroy %d\n", cuStreamDestroy_v2(stream));
    return;
  }
  std::printf("end %d\n", std::strcmp(way, "per_thread") == 0
                              ? cuStreamEndCapture_ptsz(stream, &graph)
                              : cuStreamEndCapture(stream, &graph));
  std::printf("graph %d\n", graph != nullptr);
}

}  // namespace

int main(int, char** argv) {
  use_gpu();
  CUdeviceptr plain = 0;
  CUdeviceptr elastic = 0;
  cuMemAlloc_v2(&plain, 4096);
  kvcached_tag_push("kv");
  cuMemAlloc_v2(&elastic, kSize);
  kvcached_tag_pop();
  std::printf("grow %d\n", kvcached_grow(elastic, 0, kSize, 1000));
  std::printf("resident %zu\n", resident(elastic));
  const std::size_t full = really_free();

  CUstream stream = nullptr;
  const bool per_thread = std::strcmp(argv[1], "per_thread") == 0;
  if (!per_thread) cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  const auto mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::printf("begin %d\n", per_thread ? cuStreamBeginCapture_v2_ptsz(stream, mode)
                                       : cuStreamBeginCapture_v2(stream, mode));
  std::printf("capture %d\n", per_thread ? cuMemsetD8Async_ptsz(plain, 1, 4096, stream)
                                         : cuMemsetD8Async(plain, 1, 4096, stream));
  // From a thread that does not capture: in this one the driver itself would refuse much.
  std::thread([&] { std::printf("shrink %d\n", kvcached_shrink(elastic, 0, kSize)); }).join();
  std::printf("back %d\n", comes_back(full + kSize, std::chrono::milliseconds(50)));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  if (!per_thread) cuStreamIsCapturing(stream, &status);
  std::printf("status %d\n", per_thread ? 1 : static_cast<int>(status));
  end(argv[1], stream);
  std::printf("back %d\n", comes_back(full + kSize, std::chrono::seconds(10)));
  std::printf("free %d\n", cuMemFree_v2(elastic));
  return 0;
}
