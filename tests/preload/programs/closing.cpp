// link: -lcuda
// A context ends while the library's thread makes a call in it, for a buffer that was freed when
// that was not possible yet. Arguments: how it ends (destroy, reset), and a file that
// SIM_GPU_FAULTS names. Says what the driver answers, and whether the end waited for that call.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

int main(int, char** arguments) {
  using std::chrono::milliseconds;
  const bool primary = std::strcmp(arguments[1], "reset") == 0;
  CUcontext context = nullptr;
  CUstream stream = nullptr;
  CUgraph graph = nullptr;
  CUdeviceptr at = 0;
  cuInit(0);
  if (primary) {
    use_gpu();
  } else {
    cuCtxCreate_v2(&context, 0, 0);
  }
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  std::printf("alloc %d\n", cuMemAlloc_v2(&at, 8 << 20));
  std::printf("fill %d\n", cuMemsetD8_v2(at, 1, 8 << 20));
  cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  std::printf("free %d\n", cuMemFree_v2(at));
  std::ofstream(arguments[2]) << "cuEventSynchronize every=1 delay=600 error=0\n";
  std::printf("capture %d\n", cuStreamEndCapture(stream, &graph));
  cuGraphDestroy(graph);
  std::this_thread::sleep_for(milliseconds(100));  // the library comes back each 10 ms
  const auto begin = std::chrono::steady_clock::now();
  std::printf("end %d\n", primary ? cuDevicePrimaryCtxReset_v2(0) : cuCtxDestroy_v2(context));
  std::printf("waited %d\n", std::chrono::steady_clock::now() - begin > milliseconds(200));
  std::ofstream(arguments[2]) << "";
  // All of the GPU is there for the next one.
  std::size_t free = 0;
  std::size_t total = 0;
  if (primary) {
    use_gpu();
  } else {
    cuCtxCreate_v2(&context, 0, 0);
  }
  for (int i = 0; i < 500 && free != total; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    cuMemGetInfo_v2(&free, &total);
  }
  std::printf("left %zu\n", total - free);
  return 0;
}
