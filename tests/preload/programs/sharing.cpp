// link: -lcuda
// Asks twice for a handle by which other processes could reach elastic memory, then uses the
// memory; and pins memory for other devices in every way there is, as whose pages nobody decides,
// and claimed.
#include <cstdio>
#include <initializer_list>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kSize = 8 << 20;

std::size_t resident(CUdeviceptr at) {
  std::size_t bytes = 0;
  kvcached_resident(at, 0, kSize, &bytes);
  return bytes;
}

void pin(CUdeviceptr at) {
  unsigned yes = 1;
  const auto set = cuPointerSetAttribute(&yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at + 4096);
  unsigned long long tokens[2] = {};
  cuPointerGetAttribute(tokens, CU_POINTER_ATTRIBUTE_P2P_TOKENS, at);
  std::printf("pin %d resident %zu\n", static_cast<int>(set), resident(at));
}

// Whether there is memory of the program's own right behind the allocation now.
bool map_behind(CUdeviceptr at) {
  constexpr std::size_t kPage = 2 << 20;
  CUdeviceptr next = 0;
  CUmemGenericAllocationHandle handle = 0;
  CUmemAllocationProp wanted{};
  wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  const CUmemAccessDesc access{wanted.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  return cuMemAddressReserve(&next, kPage, 0, at + kSize, 0) == CUDA_SUCCESS &&
         next == at + kSize && cuMemCreate(&handle, kPage, &wanted, 0) == CUDA_SUCCESS &&
         cuMemMap(next, kPage, 0, handle, 0) == CUDA_SUCCESS &&
         cuMemSetAccess(next, kPage, &access, 1) == CUDA_SUCCESS;
}

void ask_for_dma_buf(CUdeviceptr at, std::size_t offset, std::size_t size) {
  int descriptor = -1;
  const auto kind = CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD;
  const auto result = cuMemGetHandleForAddressRange(&descriptor, at + offset, size, kind, 0);
  std::printf("dma-buf %d %s resident %zu\n", static_cast<int>(result),
              descriptor >= 0 ? "some" : "none", resident(at));
}

}  // namespace

int main() {
  CUdeviceptr at = 0;
  use_gpu();
  std::printf("alloc %d\n", static_cast<int>(cuMemAlloc_v2(&at, kSize)));
  for (const std::size_t offset : {std::size_t{0}, std::size_t{4096}}) {
    CUipcMemHandle ipc;
    std::printf("ipc %d\n", static_cast<int>(cuIpcGetMemHandle(&ipc, at + offset)));
  }
  std::printf("fill %d\n", static_cast<int>(cuMemsetD8_v2(at, 1, kSize)));
  std::printf("free %d\n", static_cast<int>(cuMemFree_v2(at)));
  CUdeviceptr plain = 0;
  cuMemAlloc_v2(&plain, 1 << 20);
  unsigned yes = 1;
  std::printf("plain %d\n", static_cast<int>(cuPointerSetAttribute(
                                &yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, plain)));
  cuMemAlloc_v2(&at, kSize);
  pin(at);
  cuMemFree_v2(at);
  cuMemAlloc_v2(&at, kSize);
  std::printf("memory behind it %d\n", map_behind(at));
  ask_for_dma_buf(at, 4096, kSize - 4096);
  ask_for_dma_buf(at, 4096, kSize);  // into what lies behind it
  CUdeviceptr claimed = 0;
  cuMemAlloc_v2(&claimed, kSize);
  kvcached_grow(claimed, 0, 2 << 20, 1000);
  pin(claimed);
  pin(claimed);
  ask_for_dma_buf(claimed, 0, 4096);
  return 0;
}
