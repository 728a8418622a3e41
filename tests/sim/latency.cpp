#include "tests/sim/latency.hpp"

#include <cstdint>
#include <cstring>
#include <ctime>
#include <optional>

#include "tests/sim/device.hpp"
#include "tests/sim/settings.hpp"

namespace sim {
namespace {

/// Medians of one H200, driver 580, CUDA 13.0, by exported name.
struct Cost {
  const char* name;
  std::int64_t nanoseconds;
  bool serial;  // the driver lets one process at a time do it
};

constexpr Cost kCosts[] = {
    {"cuMemCreate", 8'000, true},      {"cuMemMap", 600, false},
    {"cuMemSetAccess", 20'000, true},  {"cuMemUnmap", 14'000, true},
    {"cuMemRelease", 9'000, true},     {"cuMemAddressReserve", 16'000, false},
    {"cuMemAlloc_v2", 28'000, true},   {"cuMemFree_v2", 24'000, true},
    {"cuMemGetInfo_v2", 3'700, false}, {"cuCtxRecordEvent", 190, false},
    {"cuEventQuery", 1'300, false},    {"cuLaunchKernel", 3'900, false},
};

std::int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

void delay(const char* name) {
  if (!settings().latency) return;
  for (const Cost& cost : kCosts) {
    if (std::strcmp(cost.name, name) != 0) continue;
    std::optional<PhysicalMemory::Serial> serial;
    if (cost.serial) serial.emplace(*find_device(0)->memory);
    // The real call keeps the processor too, and a sleep is not that short.
    const std::int64_t until = now_ns() + cost.nanoseconds;
    while (now_ns() < until) {
    }
    return;
  }
}

}  // namespace sim
