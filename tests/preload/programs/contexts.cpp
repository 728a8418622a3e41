// link: -lcuda
// Ends contexts that still own elastic and plain memory, four rounds of each way, with more than
// half of the GPU each time: what a round leaves behind the next one would miss.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim/driver/cuda_abi.hpp"

namespace {

CUdeviceptr fill(std::size_t size) {
  CUdeviceptr at = 0;
  CUipcMemHandle handle;
  std::printf("alloc %d\n", cuMemAlloc_v2(&at, size));
  std::printf("elastic %d\n", cuIpcGetMemHandle(&handle, at) == CUDA_ERROR_NOT_SUPPORTED);
  std::printf("fill %d\n", cuMemsetD8_v2(at, 1, size));
  return at;
}

bool known(CUdeviceptr at) {
  CUdeviceptr base = 0;
  std::size_t size = 0;
  return cuMemGetAddressRange_v2(&base, &size, at) == CUDA_SUCCESS;
}

CUresult end(const char* way, CUcontext context) {
  if (std::strcmp(way, "destroy") == 0) return cuCtxDestroy_v2(context);
  if (std::strcmp(way, "reset") == 0) return cuDevicePrimaryCtxReset_v2(0);
  // Released twice as often as retained: only the second one ends it.
  CUcontext again = nullptr;
  cuDevicePrimaryCtxRetain(&again, 0);
  std::printf("release %d\n", cuDevicePrimaryCtxRelease_v2(0));
  return cuDevicePrimaryCtxRelease_v2(0);
}

}  // namespace

int main(int, char** argv) {
  const char* way = argv[1];
  const bool primary = std::strcmp(way, "destroy") != 0;
  cuInit(0);
  std::size_t total = 0;
  cuDeviceTotalMem_v2(&total, 0);
  for (int round = 0; round < 4; ++round) {
    CUcontext context = nullptr;
    if (primary) {
      cuDevicePrimaryCtxRetain(&context, 0);
      cuCtxSetCurrent(context);
    } else {
      cuCtxCreate_v2(&context, 0, 0);
    }
    std::size_t free = 0;
    cuMemGetInfo_v2(&free, &total);
    std::printf("taken %zu\n", (total - free) >> 20);
    const CUdeviceptr at = fill(total / 16 * 9);
    CUdeviceptr plain = 0;
    std::printf("plain %d\n", cuMemAlloc_v2(&plain, 3 << 20));
    if (primary) cuCtxSetCurrent(nullptr);
    std::printf("end %d\n", end(way, context));
    std::printf("known %d\n", known(at));
  }
  return 0;
}
