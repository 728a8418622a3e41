// link: -lcuda
// A buffer that nobody claimed cannot be backed when it is asked for, and then there is work after
// all. Argument: a file that SIM_GPU_FAULTS names.
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

int main(int, char** arguments) {
  constexpr std::size_t kSize = 8 << 20;
  auto* whole = reinterpret_cast<int (*)(std::uint64_t, std::int64_t)>(
      dlsym(RTLD_DEFAULT, "kvcached_back_whole"));
  auto* resident = reinterpret_cast<int (*)(std::uint64_t, std::size_t, std::size_t, std::size_t*)>(
      dlsym(RTLD_DEFAULT, "kvcached_resident"));
  use_gpu();
  CUdeviceptr at = 0;
  std::printf("alloc %d\n", static_cast<int>(cuMemAlloc_v2(&at, kSize)));
  std::ofstream(arguments[1]) << "cuMemCreate every=1 error=2\n";
  std::printf("back %d\n", whole(at, 0));
  std::ofstream(arguments[1]) << "\n";
  std::printf("fill %d\n", static_cast<int>(cuMemsetD8_v2(at, 7, kSize)));
  std::size_t bytes = 0;
  resident(at, 0, kSize, &bytes);
  unsigned char last = 0;
  cuMemcpyDtoH_v2(&last, at + kSize - 1, 1);
  std::printf("resident %zu last %d\nfree %d\n", bytes, last, static_cast<int>(cuMemFree_v2(at)));
  return 0;
}
