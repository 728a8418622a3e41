// link: -lcuda
// Calls every function that gives work to the GPU, with nothing but zeros as arguments, each time
// with a fresh buffer that nobody claimed, and says how much of it was backed before and after.
// Argument: by which way the function is called.
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "shim/driver/cuda_abi.hpp"

namespace {

constexpr const char* kSymbols[] = {
#define HOOK(symbol, ...)
#define NVML(symbol, ...)
#define EVIDENCE(symbol, ...) #symbol,
#define NODE(symbol, ...)
#include "shim/entry/table.inc"
#undef HOOK
#undef NVML
#undef EVIDENCE
#undef NODE
};

using Work = CUresult (*)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*,
                          void*, void*);
using Resident = int (*)(std::uint64_t, std::size_t, std::size_t, std::size_t*);

}  // namespace

int main(int, char** argv) {
  const bool linked = std::strcmp(argv[1], "linked") == 0;
  void* handle = linked ? RTLD_DEFAULT : dlopen("libcuda.so.1", RTLD_NOW);
  auto* resident = reinterpret_cast<Resident>(dlsym(RTLD_DEFAULT, "kvcached_resident"));
  CUcontext context = nullptr;
  cuInit(0);
  constexpr std::size_t kSize = 8 << 20;
  for (const char* symbol : kSymbols) {
    // A context of its own: some of this work writes to address 0, which is a fault.
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxSetCurrent(context);
    CUdeviceptr at = 0;
    std::size_t before = 0;
    std::size_t after = 0;
    const int alloc = cuMemAlloc_v2(&at, kSize);
    resident(at, 0, kSize, &before);
    auto* work = reinterpret_cast<Work>(dlsym(handle, symbol));
    work(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
         nullptr, nullptr);
    resident(at, 0, kSize, &after);
    std::printf("%s alloc %d before %zu after %zu free %d\n", symbol, alloc, before, after,
                cuMemFree_v2(at));
    cuDevicePrimaryCtxReset_v2(0);
    cuDevicePrimaryCtxRelease_v2(0);
  }
  return 0;
}
