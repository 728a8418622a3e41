// A program that sets KVCACHED_MATCH itself: before it looks for the driver's calls, or after it
// has found one that gives work to the GPU ("late"). Prints how many bytes of a copy are lost.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "shim/driver/cuda_abi.hpp"

namespace {

template <typename F>
F* find(void* driver, const char* name) {
  return reinterpret_cast<F*>(dlsym(driver, name));
}

}  // namespace

int main(int, char** argv) {
  const bool late = std::strcmp(argv[1], "late") == 0;
  dlsym(RTLD_DEFAULT, "PyInit__json");  // as CPython does at its first extension
  const auto set = [] { setenv("KVCACHED_MATCH", "size>=8MiB", 1); };
  if (!late) set();
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  const auto to = find<CUresult(CUdeviceptr, const void*, std::size_t)>(driver, "cuMemcpyHtoD_v2");
  if (late) set();
  const auto from = find<CUresult(void*, CUdeviceptr, std::size_t)>(driver, "cuMemcpyDtoH_v2");
  const auto retain = find<CUresult(CUcontext*, CUdevice)>(driver, "cuDevicePrimaryCtxRetain");
  CUcontext context = nullptr;
  find<CUresult(unsigned)>(driver, "cuInit")(0);
  retain(&context, 0);
  find<CUresult(CUcontext)>(driver, "cuCtxSetCurrent")(context);
  std::vector<unsigned char> wrote(64 << 20), read(wrote.size());
  for (std::size_t i = 0; i < wrote.size(); ++i) wrote[i] = static_cast<unsigned char>(i >> 21 | 1);
  for (int round = 0; round < 2; ++round) {
    CUdeviceptr at = 0;
    const auto allocate = find<CUresult(CUdeviceptr*, std::size_t)>(driver, "cuMemAlloc_v2");
    std::printf("alloc %d ", allocate(&at, wrote.size()));
    std::printf("to %d ", to(at, wrote.data(), wrote.size()));
    std::printf("from %d ", from(read.data(), at, read.size()));
    std::size_t lost = 0;
    for (std::size_t i = 0; i < wrote.size(); ++i) lost += wrote[i] != read[i] ? 1U : 0U;
    std::printf("lost %zu\n", lost);
  }
  return 0;
}
