// link: -lcuda
// A buffer that nobody claims, and a GPU that another program fills before the first use: what
// does the program hear? Prints the answers of the fill and of what comes after.
#include <cstdio>

#include "shim/driver/cuda_abi.hpp"

int main() {
  CUcontext context = nullptr;
  cuInit(0);
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxSetCurrent(context);
  CUdeviceptr elastic = 0;
  std::printf("alloc %d\n", cuMemAlloc_v2(&elastic, 64 << 20));
  // Physical memory that the pool knows nothing of: created, never mapped.
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  CUmemGenericAllocationHandle taken[256];
  int count = 0;
  while (count < 256 && cuMemCreate(&taken[count], 2 << 20, &properties, 0) == CUDA_SUCCESS) {
    ++count;
  }
  std::printf("fill %d\n", cuMemsetD8_v2(elastic, 1, 64 << 20));
  while (count > 0) cuMemRelease(taken[--count]);
  std::printf("fill %d\n", cuMemsetD8_v2(elastic, 2, 64 << 20));
  unsigned char last = 0;
  std::printf("read %d\n", cuMemcpyDtoH_v2(&last, elastic + (64 << 20) - 1, 1));
  std::printf("last %d\n", last);
  std::printf("free %d\n", cuMemFree_v2(elastic));
  return 0;
}
