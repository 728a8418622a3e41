// Contexts that come and go with elastic memory in them, and a device that is reset.
#include "check.hpp"

namespace {

constexpr std::size_t kSize = 16 * kMiB;

void driver_context(CUdevice device, unsigned char value) {
  CUcontext context;
  MUST(cuCtxCreate(&context, nullptr, 0, device));
  CUdeviceptr kept, freed;
  MUST(cuMemAlloc(&kept, kSize));
  MUST(cuMemAlloc(&freed, kSize));
  MUST(cuMemsetD8(kept, value, kSize));
  MUST(cuMemFree(freed));
  CUcontext popped;
  MUST(cuCtxPopCurrent(&popped));
  std::printf("popped ours %d\n", popped == context);
  MUST(cuCtxPushCurrent(context));
  std::vector<unsigned char> host(kSize);
  MUST(cuMemcpyDtoH(host.data(), kept, kSize));
  std::printf("context %016llx\n", static_cast<unsigned long long>(digest_of(host.data(), kSize)));
  MUST(cuCtxDestroy(context));  // with its memory
}

}  // namespace

int main() {
  MUST(cuInit(0));
  CUdevice device;
  MUST(cuDeviceGet(&device, 0));
  for (unsigned i = 0; i < 4; ++i) driver_context(device, static_cast<unsigned char>(i + 1));
  for (unsigned round = 0; round < 3; ++round) {
    unsigned *a, *b;
    MUST(cudaMalloc(&a, kSize));
    MUST(cudaMalloc(&b, kSize));
    fill<<<64, 256>>>(a, kSize / 4, round);
    show_digest("before the reset", a, kSize);
    MUST(cudaDeviceReset());
    say("free after the reset", cudaFree(b));
    cudaGetLastError();
  }
  CUcontext primary;
  MUST(cuDevicePrimaryCtxRetain(&primary, device));
  MUST(cuCtxSetCurrent(primary));
  CUdeviceptr p;
  MUST(cuMemAlloc(&p, kSize));
  MUST(cuMemsetD32(p, 0x01020304, kSize / 4));
  MUST(cuDevicePrimaryCtxReset(device));
  MUST(cuDevicePrimaryCtxRelease(device));
  say("use after the reset", cuMemsetD32(p, 1, 1));
  return 0;
}
