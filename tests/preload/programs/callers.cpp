// link: -lcuda -rdynamic
// Allocates by itself and through a library, and says which of it became elastic. Argument: the
// library; more arguments: other files that are loaded at its addresses afterwards.
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <thread>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kSize = 8 << 20;
using Allocate = int (*)(CUdeviceptr*, std::size_t);

void show(const char* who, int result, CUdeviceptr at) {
  CUipcMemHandle handle;
  const bool elastic = cuIpcGetMemHandle(&handle, at) == CUDA_ERROR_NOT_SUPPORTED;
  std::printf("%s %d elastic %d free %d\n", who, result, elastic, cuMemFree_v2(at));
}

void through(const char* who, Allocate allocate) {
  CUdeviceptr at = 0;
  const int result = allocate == nullptr ? -1 : allocate(&at, kSize);
  show(who, result, at);
}

__attribute__((noinline)) int by_itself(CUdeviceptr* out, std::size_t size) {
  const int result = cuMemAlloc_v2(out, size);
  return result + static_cast<int>(*out == 0);
}

}  // namespace

// Two libraries of one build have the same layout: the second gets the addresses, and so the return
// addresses, of the first.
extern "C" __attribute__((visibility("default"))) void in_turn(int count, char** files) {
  for (int i = 0; i < count; ++i) {
    void* library = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
    for (const char* name : {"cache_allocate", "other_allocate"}) {
      through(name,
              library == nullptr ? nullptr : reinterpret_cast<Allocate>(dlsym(library, name)));
    }
    if (library != nullptr) dlclose(library);
  }
}

int main(int count, char** arguments) {
  CUcontext context = use_gpu();
  through("itself", by_itself);
  std::thread([&] {
    cuCtxSetCurrent(context);
    through("thread", by_itself);
  }).join();
  in_turn(count - 1, arguments + 1);
  return 0;
}
