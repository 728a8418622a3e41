// link: -lcuda
// A kernel has faulted: what does the driver answer for memory afterwards? Argument: a file that
// SIM_GPU_FAULTS names. The simulated driver lets no kernel fault, so its calls are told to answer
// as if one had.
#include <cstdio>
#include <fstream>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

int main(int, char** arguments) {
  constexpr std::size_t kSize = 4 << 20;
  use_gpu();
  CUdeviceptr before = 0;
  std::printf("alloc %d\n", static_cast<int>(cuMemAlloc_v2(&before, kSize)));
  {
    std::ofstream control(arguments[1]);
    for (const char* call : {"cuMemGetInfo", "cuMemAlloc", "cuMemFree"}) {
      control << call << " every=1 error=" << static_cast<int>(CUDA_ERROR_LAUNCH_FAILED) << "\n";
    }
  }
  CUdeviceptr after = 0;
  std::printf("alloc %d\n", static_cast<int>(cuMemAlloc_v2(&after, kSize)));
  std::printf("free %d\n", static_cast<int>(cuMemFree_v2(before)));
  return 0;
}
