// link: -lcuda
// Asks twice for every handle by which other processes or devices could reach elastic memory, then
// uses the memory.
#include <cstdio>
#include <initializer_list>

#include "shim/driver/cuda_abi.hpp"

int main() {
  constexpr std::size_t kSize = 8 << 20;
  CUcontext context = nullptr;
  CUdeviceptr at = 0;
  cuInit(0);
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxSetCurrent(context);
  std::printf("alloc %d\n", static_cast<int>(cuMemAlloc_v2(&at, kSize)));
  for (const std::size_t offset : {std::size_t{0}, std::size_t{4096}}) {
    CUipcMemHandle ipc;
    int descriptor = -1;
    std::printf("ipc %d\n", static_cast<int>(cuIpcGetMemHandle(&ipc, at + offset)));
    const auto kind = CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD;
    std::printf(
        "dma-buf %d %d\n",
        static_cast<int>(cuMemGetHandleForAddressRange(&descriptor, at + offset, 4096, kind, 0)),
        descriptor);
  }
  std::printf("fill %d\n", static_cast<int>(cuMemsetD8_v2(at, 1, kSize)));
  std::printf("free %d\n", static_cast<int>(cuMemFree_v2(at)));
  return 0;
}
