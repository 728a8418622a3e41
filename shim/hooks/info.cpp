#include <array>
#include <cstdio>
#include <cstring>

#include "shim/driver/cuda.hpp"
#include "shim/driver/real_dlsym.hpp"
#include "shim/hooks/accounts.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/hooks/own_gpu.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
namespace {

using driver::DeviceId;
using driver::MemoryInfo;
using driver::Status;

MemoryInfo seen_by_engine(Process& process, DeviceId device, View view, MemoryInfo real) noexcept {
  const auto pool = process.pool_view(device);
  if (!pool) {
    return real;
  }
  const Bytes plain = accounts().held(device);
  const Bytes outside = accounts().first_outside(
      device, view, held_outside(real, {plain, pool->elastic_held, pool->members_held}));
  return own_gpu(real.total, outside, plain + pool->elastic_asked);
}

// NVML knows devices by its own handles; the UUID is what both sides can say.
DeviceId device_of(void* nvml_device, const void* nvml_function) noexcept {
  using GetUuid = NvmlResult (*)(void*, char*, unsigned);
  void* library = driver::library_of(nvml_function);
  const auto get_uuid = reinterpret_cast<GetUuid>(
      library == nullptr ? nullptr : driver::real_dlsym()(library, "nvmlDeviceGetUUID"));
  char wanted[96] = "";
  if (get_uuid == nullptr || get_uuid(nvml_device, wanted, sizeof wanted) != NvmlResult::success) {
    return {};
  }
  std::array<std::uint8_t, 16> u{};
  for (DeviceId device{0}; driver::device_uuid(device, u) == Status::ok; ++device.ordinal) {
    char name[48];
    std::snprintf(name, sizeof name,
                  "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
                  u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
                  u[14], u[15]);
    if (std::strcmp(name, wanted) == 0) {
      return device;
    }
  }
  return {};
}

// The free bytes to show instead of the driver's.
std::optional<Bytes> free_to_show(void* device, const void* next, MemoryInfo real) noexcept {
  auto* process = Process::existing();
  if (process == nullptr) {
    return std::nullopt;
  }
  const DeviceId here = device_of(device, next);
  if (here == DeviceId{}) {
    return std::nullopt;
  }
  return seen_by_engine(*process, here, View::management, real).free;
}

}  // namespace

CUresult mem_get_info(Next<std::size_t*, std::size_t*> next, std::size_t* free,
                      std::size_t* total) noexcept {
  const CUresult result = next(free, total);
  auto* process = result == CUDA_SUCCESS ? Process::get() : nullptr;
  driver::ContextId context;
  DeviceId device;
  if (process == nullptr || free == nullptr || total == nullptr ||
      driver::current_context(context, device) != Status::ok) {
    return result;
  }
  driver::context_seen(device, context);
  *free = seen_by_engine(*process, device, View::driver, {Bytes(*free), Bytes(*total)}).free.value;
  return result;
}

NvmlResult nvml_memory_info(NvmlResult (*next)(void*, NvmlMemory*), void* device,
                            NvmlMemory* out) noexcept {
  const NvmlResult result = next(device, out);
  if (result == NvmlResult::success) {
    const auto* place = reinterpret_cast<const void*>(next);
    if (const auto free = free_to_show(device, place, {Bytes(out->free), Bytes(out->total)})) {
      out->free = free->value;
      out->used = Bytes(out->total).minus_clamped(*free).value;
    }
  }
  return result;
}

NvmlResult nvml_memory_info_v2(NvmlResult (*next)(void*, NvmlMemoryV2*), void* device,
                               NvmlMemoryV2* out) noexcept {
  const NvmlResult result = next(device, out);
  if (result == NvmlResult::success) {
    const auto* place = reinterpret_cast<const void*>(next);
    if (const auto free = free_to_show(device, place, {Bytes(out->free), Bytes(out->total)})) {
      out->free = free->value;
      out->used = Bytes(out->total).minus_clamped(*free + Bytes(out->reserved)).value;
    }
  }
  return result;
}

}  // namespace kvcached::hooks
