// link: -lcuda
// Takes a GPU's memory to the end, by the way that the argument names, after a buffer that it does
// not touch yet: what it was given must be there when it is used, and no more may be given.
// Run with and without the library, the output must be the same.
#include <cstdio>
#include <cstring>
#include <vector>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kFirst = 32 * kMiB;

bool take(const char* way, std::vector<CUdeviceptr>& taken) {
  CUdeviceptr at = 0;
  std::size_t pitch = 0;
  if (std::strcmp(way, "create") == 0) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle handle = 0;
    return cuMemCreate(&handle, 2 * kMiB, &properties, 0) == CUDA_SUCCESS;
  }
  const CUresult result = std::strcmp(way, "pitch") == 0
                              ? cuMemAllocPitch_v2(&at, &pitch, 2048, 1024, 4)
                          : std::strcmp(way, "async") == 0 ? cuMemAllocAsync(&at, 2 * kMiB, nullptr)
                          : std::strcmp(way, "elastic") == 0 ? cuMemAlloc_v2(&at, 8 * kMiB)
                                                             : cuMemAlloc_v2(&at, 2 * kMiB);
  if (result == CUDA_SUCCESS) taken.push_back(at);
  return result == CUDA_SUCCESS;
}

}  // namespace

int main(int, char** argv) {
  use_gpu();
  CUdeviceptr first = 0;
  std::printf("first %d\n", cuMemAlloc_v2(&first, kFirst));
  std::vector<CUdeviceptr> taken;
  int count = 0;
  while (count < 256 && take(argv[1], taken)) ++count;
  CUdeviceptr late = 0;
  std::printf("late %d\n", cuMemAlloc_v2(&late, kFirst));
  CUresult used = cuMemsetD8_v2(first, 1, kFirst);
  for (const CUdeviceptr at : taken) {
    if (used == CUDA_SUCCESS) used = cuMemsetD8_v2(at, 2, 2 * kMiB);
  }
  std::printf("use %d\n", used);
  std::fprintf(stderr, "%d pieces\n", count);
  return 0;
}
