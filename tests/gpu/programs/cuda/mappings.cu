// A program that maps memory itself: reserve, create, map twice, remap, export, with elastic memory beside it.
#include <unistd.h>

#include "check.hpp"

int main() {
  MUST(cudaFree(nullptr));
  unsigned* elastic;
  MUST(cudaMalloc(&elastic, 16 * kMiB));
  CUmemAllocationProp prop{};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  std::size_t granularity = 0;
  MUST(cuMemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  std::printf("granularity %zu\n", granularity);
  const std::size_t size = 8 * kMiB;
  CUdeviceptr va = 0;
  MUST(cuMemAddressReserve(&va, 4 * size, 0, 0, 0));
  CUmemGenericAllocationHandle first, second;
  MUST(cuMemCreate(&first, size, &prop, 0));
  MUST(cuMemCreate(&second, size, &prop, 0));
  const CUmemAccessDesc access{{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  MUST(cuMemMap(va, size, 0, first, 0));
  MUST(cuMemMap(va + size, size, 0, second, 0));
  MUST(cuMemMap(va + 2 * size, size, 0, first, 0));
  MUST(cuMemSetAccess(va, 3 * size, &access, 1));
  auto* p = reinterpret_cast<unsigned*>(va);
  fill<<<64, 256>>>(p, size / 2, 11u);
  show_digest("first", p, size);
  show_digest("its alias", p + size / 2, size);
  CUmemGenericAllocationHandle again = 0;
  MUST(cuMemRetainAllocationHandle(&again, reinterpret_cast<void*>(va + size)));
  std::printf("retained the second %d\n", again == second);
  MUST(cuMemRelease(again));
  int fd = -1;
  MUST(cuMemExportToShareableHandle(&fd, first, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  CUmemGenericAllocationHandle imported;
  MUST(cuMemImportFromShareableHandle(&imported, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)),
                                      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  close(fd);
  MUST(cuMemMap(va + 3 * size, size, 0, imported, 0));
  MUST(cuMemSetAccess(va + 3 * size, size, &access, 1));
  show_digest("imported", reinterpret_cast<void*>(va + 3 * size), size);
  MUST(cuMemUnmap(va + size, size));
  MUST(cuMemRelease(second));
  MUST(cuMemMap(va + size, size, 0, first, 0));
  MUST(cuMemSetAccess(va + size, size, &access, 1));
  show_digest("remapped", reinterpret_cast<void*>(va + size), size);
  MUST(cudaMemcpy(elastic, p, 16 * kMiB, cudaMemcpyDeviceToDevice));
  show_digest("elastic", elastic, 16 * kMiB);
  CUdeviceptr base = 0;
  std::size_t length = 0;
  MUST(cuMemGetAddressRange(&base, &length, va + size + 5));
  std::printf("range base + %llu, %zu\n", static_cast<unsigned long long>(base - va), length);
  MUST(cuMemUnmap(va, 4 * size));
  MUST(cuMemRelease(first));
  MUST(cuMemRelease(imported));
  MUST(cuMemAddressFree(va, 4 * size));
  MUST(cudaFree(elastic));
  say("map of freed addresses", cuMemUnmap(va, size));
  return 0;
}
