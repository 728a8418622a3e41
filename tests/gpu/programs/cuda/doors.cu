// All ways to find the driver's functions: each must find one that works, and the same answers.
#include <dlfcn.h>

#include "check.hpp"

namespace {

using Alloc = CUresult (*)(CUdeviceptr*, std::size_t);
using Free = CUresult (*)(CUdeviceptr);
using Range = CUresult (*)(CUdeviceptr*, std::size_t*, CUdeviceptr);

void exercise(const char* name, void* alloc, void* free, void* range) {
  std::printf("%s: %d %d %d", name, alloc != nullptr, free != nullptr, range != nullptr);
  if (alloc == nullptr || free == nullptr || range == nullptr) {
    std::printf("\n");
    return;
  }
  CUdeviceptr p = 0, base = 0;
  std::size_t size = 0;
  const CUresult made = reinterpret_cast<Alloc>(alloc)(&p, 6 * kMiB + 100);
  const CUresult asked = reinterpret_cast<Range>(range)(&base, &size, p + 3 * kMiB);
  const CUresult gone = reinterpret_cast<Free>(free)(p);
  std::printf(" alloc %d range %d base %d size %zu free %d\n", static_cast<int>(made), static_cast<int>(asked),
              base == p, size, static_cast<int>(gone));
}

void* by_runtime(const char* name, unsigned version) {
  void* at = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t result = version == 0
                                 ? cudaGetDriverEntryPointByVersion(name, &at, 13000, cudaEnableDefault, &found)
                                 : cudaGetDriverEntryPointByVersion(name, &at, version, cudaEnableDefault, &found);
  std::printf("%s %u: %s %d\n", name, version, cudaGetErrorName(result), static_cast<int>(found));
  return at;
}

void* by_driver(const char* name, int version, std::uint64_t flags) {
  void* at = nullptr;
  CUdriverProcAddressQueryResult found{};
  const CUresult result = cuGetProcAddress(name, &at, version, flags, &found);
  std::printf("%s %d %llu: %d %d\n", name, version, static_cast<unsigned long long>(flags), static_cast<int>(result),
              static_cast<int>(found));
  return at;
}

}  // namespace

int main() {
  MUST(cudaFree(nullptr));
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  for (const char* suffix : {"", "_v2"}) {
    char names[3][64];
    std::snprintf(names[0], 64, "cuMemAlloc%s", suffix);
    std::snprintf(names[1], 64, "cuMemFree%s", suffix);
    std::snprintf(names[2], 64, "cuMemGetAddressRange%s", suffix);
    if (*suffix != 0)
      exercise("dlsym", dlsym(driver, names[0]), dlsym(driver, names[1]), dlsym(driver, names[2]));
  }
  exercise("runtime", by_runtime("cuMemAlloc", 0), by_runtime("cuMemFree", 0), by_runtime("cuMemGetAddressRange", 0));
  exercise("runtime 12000", by_runtime("cuMemAlloc", 12000), by_runtime("cuMemFree", 12000),
           by_runtime("cuMemGetAddressRange", 12000));
  for (const std::uint64_t flags : {CU_GET_PROC_ADDRESS_DEFAULT, CU_GET_PROC_ADDRESS_LEGACY_STREAM,
                                    CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM})
    for (const int version : {3020, 11030, 12000, 13000})
      exercise("driver", by_driver("cuMemAlloc", version, flags), by_driver("cuMemFree", version, flags),
               by_driver("cuMemGetAddressRange", version, flags));
  by_driver("cuMemAlloc", 2000, 0);
  by_driver("cuNoSuchFunction", 13000, 0);
  by_driver("cuMemAlloc_v2", 13000, 0);
  by_driver("cuGetProcAddress", 12000, 0);
  by_driver("", 13000, 0);
  exercise("linked", reinterpret_cast<void*>(&cuMemAlloc), reinterpret_cast<void*>(&cuMemFree),
           reinterpret_cast<void*>(&cuMemGetAddressRange));
  std::printf("unknown symbol %d\n", dlsym(driver, "cuNoSuchFunction") != nullptr);
  return 0;
}
