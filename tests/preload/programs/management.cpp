// link: -lcuda
// A program that takes elastic memory and asks NVIDIA's management library how much there is.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "shim/driver/cuda_abi.hpp"

namespace {

struct Memory {
  unsigned long long total, free, used;
};
struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

std::string uuid_text() {
  CUuuid uuid{};
  cuDeviceGetUuid_v2(&uuid, 0);
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    char byte[4];
    std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += byte;
  }
  return text;
}

void ask(void* library, const char* when) {
  auto* first =
      reinterpret_cast<int (*)(void*, Memory*)>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
  auto* second =
      reinterpret_cast<int (*)(void*, MemoryV2*)>(dlsym(library, "nvmlDeviceGetMemoryInfo_v2"));
  Memory m{};
  MemoryV2 v{};
  v.version = 2;
  first(nullptr, &m);
  second(nullptr, &v);
  std::printf("%s %llu %llu %llu\n", when, m.total, m.free, m.used);
  std::printf("%s_v2 %llu %llu %llu %llu\n", when, v.total, v.reserved, v.free, v.used);
}

}  // namespace

int main(int, char** argv) {
  CUcontext context = nullptr;
  cuInit(0);
  if (argv[2] == nullptr) setenv("TEST_GPU_UUID", uuid_text().c_str(), 1);
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxSetCurrent(context);
  void* library = dlopen(argv[1], RTLD_NOW);
  CUdeviceptr small = 0;
  CUdeviceptr large = 0;
  cuMemAlloc_v2(&small, 8 << 20);
  std::size_t free = 0;
  std::size_t total = 0;
  cuMemGetInfo_v2(&free, &total);
  ask(library, "first");
  cuMemAlloc_v2(&large, 64 << 20);
  ask(library, "second");
  cuMemFree_v2(large);
  ask(library, "third");
  return 0;
}
