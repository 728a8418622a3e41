// link: -lcuda
// How allocation and freeing behave at the edges; one line for each answer. Run with and without
// the library, the output must be the same. With "threads" as argument: 64 threads at once.
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "shim/driver/cuda_abi.hpp"

namespace {

void say(const char* what, CUresult result) {
  std::printf("%s %d\n", what, static_cast<int>(result));
}

CUcontext begin() {
  CUdevice device = 0;
  CUcontext context = nullptr;
  cuInit(0);
  cuDeviceGet(&device, 0);
  cuDevicePrimaryCtxRetain(&context, device);
  return context;
}

void sizes() {
  constexpr std::size_t kMiB = 1 << 20;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, 2 * kMiB - 1, 2 * kMiB, 2 * kMiB + 1, 4 * kMiB,
        4 * kMiB + 1, 5 * kMiB - 7, 33 * kMiB + 13, std::size_t{1} << 60}) {
    CUdeviceptr at = 0;
    const CUresult result = cuMemAlloc_v2(&at, size);
    std::printf("size %zu: %d\n", size, static_cast<int>(result));
    if (result != CUDA_SUCCESS) continue;
    CUdeviceptr base = 0;
    std::size_t length = 0;
    say("range", cuMemGetAddressRange_v2(&base, &length, at));
    std::printf("same base %d, length %zu\n", base == at, length);
    say("last byte", cuMemGetAddressRange_v2(&base, &length, at + size - 1));
    say("fill", cuMemsetD8_v2(at, 1, size));
    char last = 0;
    say("read", cuMemcpyDtoH_v2(&last, at + size - 1, 1));
    std::printf("value %d\n", last);
    if (size > 1) say("free inside", cuMemFree_v2(at + size / 2));
    say("free", cuMemFree_v2(at));
    say("free again", cuMemFree_v2(at));
    say("range after", cuMemGetAddressRange_v2(&base, &length, at));
  }
}

void edges() {
  CUdeviceptr at = 0;
  say("no place for the answer", cuMemAlloc_v2(nullptr, 8 << 20));
  say("free nothing", cuMemFree_v2(0));
  say("free a number", cuMemFree_v2(12345));
  cuMemAlloc_v2(&at, 8 << 20);
  say("free on a stream", cuMemFreeAsync(at, nullptr));
  cuCtxSynchronize();
  say("free again", cuMemFree_v2(at));
  std::size_t pitch = 0;
  say("pitch", cuMemAllocPitch_v2(&at, &pitch, 4097, 2048, 4));
  say("free pitch", cuMemFree_v2(at));
  say("async", cuMemAllocAsync(&at, 8 << 20, nullptr));
  say("free async", cuMemFreeAsync(at, nullptr));
  cuCtxSynchronize();
  cuCtxSetCurrent(nullptr);
  say("without a context", cuMemAlloc_v2(&at, 8 << 20));
}

void work(CUcontext context, int number, int& wrong) {
  static std::mutex mutex;
  static std::set<CUdeviceptr> live;
  cuCtxSetCurrent(context);
  for (int i = 0; i < 2; ++i) {
    const std::size_t size = (std::size_t{4} << 20) + static_cast<std::size_t>(number * 4096 + i);
    CUdeviceptr at = 0;
    wrong += cuMemAlloc_v2(&at, size) != CUDA_SUCCESS;
    {
      const std::lock_guard lock(mutex);
      wrong += !live.insert(at).second;
    }
    const auto mark = static_cast<unsigned char>(number + 1);
    wrong += cuMemsetD8_v2(at, mark, size) != CUDA_SUCCESS;
    unsigned char first = 0;
    unsigned char last = 0;
    wrong += cuMemcpyDtoH_v2(&first, at, 1) != CUDA_SUCCESS;
    wrong += cuMemcpyDtoH_v2(&last, at + size - 1, 1) != CUDA_SUCCESS;
    wrong += first != mark || last != mark;
    {
      const std::lock_guard lock(mutex);
      live.erase(at);
    }
    wrong += cuMemFree_v2(at + 4096) != CUDA_ERROR_INVALID_VALUE;
    wrong += cuMemFree_v2(at) != CUDA_SUCCESS;
  }
}

void threads(CUcontext context) {
  constexpr int kThreads = 64;
  std::vector<int> wrong(kThreads, 0);
  std::vector<std::thread> all;
  for (int i = 0; i < kThreads; ++i) {
    all.emplace_back([&, i] { work(context, i, wrong[static_cast<std::size_t>(i)]); });
  }
  int sum = 0;
  for (int i = 0; i < kThreads; ++i) {
    all[static_cast<std::size_t>(i)].join();
    sum += wrong[static_cast<std::size_t>(i)];
  }
  std::printf("wrong answers %d\n", sum);
}

}  // namespace

int main(int, char** argv) {
  CUcontext context = begin();
  cuCtxSetCurrent(context);
  std::size_t before = 0;
  std::size_t after = 0;
  std::size_t total = 0;
  cuMemGetInfo_v2(&before, &total);
  if (argv[1] != nullptr) {
    threads(context);
  } else {
    sizes();
    edges();
  }
  cuCtxSetCurrent(context);
  cuMemGetInfo_v2(&after, &total);
  std::printf("lost %zu\n", before - after);
  return 0;
}
