// Handles by which other devices reach an allocation, if the machine has them.
#include <unistd.h>

#include "check.hpp"

namespace {

constexpr std::size_t kSize = 512 * kMiB;

void ask(const char* what, CUdeviceptr at, std::size_t size) {
  int descriptor = -1;
  say(what, cuMemGetHandleForAddressRange(&descriptor, at, size, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0));
  std::printf("%s descriptor: %s\n", what, descriptor >= 0 ? "yes" : "no");
  if (descriptor >= 0) close(descriptor);
}

}  // namespace

int main() {
  MUST(cudaFree(nullptr));
  int supported = -1;
  MUST(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, 0));
  std::printf("supported: %d\n", supported);
  for (int round = 0; round < 2; ++round) {
    CUdeviceptr at = 0;
    MUST(cuMemAlloc(&at, kSize));
    ask("whole", at, kSize);
    ask("half", at, kSize / 2);
    ask("the middle", at + kSize / 2 - 2 * kMiB, 4 * kMiB);
    ask("a page", at + 2 * kMiB, 65536);
    ask("bytes", at + 4096, 100);
    MUST(cuMemsetD8(at, 5, kSize));
    unsigned char last = 0;
    MUST(cuMemcpyDtoH(&last, at + kSize - 1, 1));
    std::printf("last byte %u\n", last);
    MUST(cuMemFree(at));
  }
  return 0;
}
