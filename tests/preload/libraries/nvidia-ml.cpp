// A stand-in for NVIDIA's management library: one device, that of the simulated GPU, on which
// 1 GiB is free.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {
constexpr unsigned long long kGiB = 1ULL << 30U;
}

EXPORTED int nvmlDeviceGetUUID(void*, char* out, unsigned size) {
  const char* uuid = std::getenv("TEST_GPU_UUID");
  std::snprintf(out, size, "%s", uuid == nullptr ? "" : uuid);
  return 0;
}

struct Memory {
  unsigned long long total, free, used;
};
EXPORTED int nvmlDeviceGetMemoryInfo(void*, Memory* out) {
  *out = {4 * kGiB, kGiB, 3 * kGiB};
  return 0;
}

struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
EXPORTED int nvmlDeviceGetMemoryInfo_v2(void*, MemoryV2* out) {
  *out = {out->version, 4 * kGiB, kGiB / 2, kGiB, 5 * kGiB / 2};
  return 0;
}
