// link: -lcuda
// Enables the second GPU's access to the first one's memory, before or after the first allocation
// there, and perhaps after the library was called before cuInit. Prints which of the two may then
// access elastic memory.
#include <cstdio>
#include <cstring>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"

int main(int, char** argv) {
  if (std::strcmp(argv[1], "before cuInit") == 0 && KVCACHED_PRESENT() != 0) {
    kvcached_adapter_report("test", "waiting");
  }
  cuInit(0);
  CUcontext contexts[2] = {};
  for (int i = 0; i < 2; ++i) cuDevicePrimaryCtxRetain(&contexts[i], i);
  CUdeviceptr at = 0;
  cuCtxSetCurrent(contexts[0]);
  if (std::strcmp(argv[1], "allocated") == 0) cuMemAlloc_v2(&at, 4096);
  cuCtxSetCurrent(contexts[1]);
  std::printf("enable %d\n", cuCtxEnablePeerAccess(contexts[0], 0));
  cuCtxSetCurrent(contexts[0]);
  std::printf("alloc %d\n", cuMemAlloc_v2(&at, 64 << 20));
  CUmemLocation location{};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  for (location.id = 0; location.id < 2; ++location.id) {
    unsigned long long access = 0;
    const int result = cuMemGetAccess(&access, &location, at);
    std::printf("access %d %llu\n", result, access);
  }
  return 0;
}
