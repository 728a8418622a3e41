// Ordinary memory of the device and of the host.
#include <sys/mman.h>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

constexpr std::size_t kPitch = 512;

CUresult allocate(Context& context, CUdeviceptr* address, std::size_t bytes, Origin origin) {
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult refused = refuse_unsafe_call()) return refused;
  return Space::get().allocate(*address, bytes, context, origin, nullptr);
}

CUresult allocate_host(Context& context, void** address, std::size_t bytes) {
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult refused = refuse_unsafe_call()) return refused;
  void* const made =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  Space::get().add_host(reinterpret_cast<std::uintptr_t>(made), bytes, context);
  *address = made;
  return CUDA_SUCCESS;
}

CUresult register_host(Context& context, void* address, std::size_t bytes) {
  const auto base = reinterpret_cast<std::uintptr_t>(address);
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (Space::get().find(base).kind == Place::Kind::kHost) {
    return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  }
  Space::get().add_host(base, bytes, context);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return enter_context(__func__, [&](Context& context) {
    return allocate(context, address, bytes, Origin::kDevice);
  });
}

CUresult cuMemAllocManaged(CUdeviceptr* address, size_t bytes, unsigned /*flags*/) {
  return enter_context(__func__, [&](Context& context) {
    return allocate(context, address, bytes, Origin::kManaged);
  });
}

CUresult cuMemAllocPitch_v2(CUdeviceptr* address, size_t* pitch, size_t width, size_t height,
                            unsigned element) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (pitch == nullptr || (element != 4 && element != 8 && element != 16)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *pitch = round_up(width, kPitch);
    return allocate(context, address, *pitch * height, Origin::kDevice);
  });
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (address == 0) return CUDA_SUCCESS;
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    if (Space::get().find(address).base != address) return CUDA_ERROR_INVALID_VALUE;
    wait_for_all(context.tails());
    return Space::get().free(address, false);
  });
}

CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *free = context.device().memory->free_bytes();
    *total = context.device().memory->total_bytes();
    return CUDA_SUCCESS;
  });
}

CUresult cuMemAllocHost_v2(void** address, size_t bytes) {
  return enter_context(__func__,
                       [&](Context& context) { return allocate_host(context, address, bytes); });
}

CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned /*flags*/) {
  return enter_context(__func__,
                       [&](Context& context) { return allocate_host(context, address, bytes); });
}

CUresult cuMemFreeHost(void* address) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    const auto base = reinterpret_cast<std::uintptr_t>(address);
    const Place place = Space::get().find(base);
    if (place.kind != Place::Kind::kHost || place.base != base) return CUDA_ERROR_INVALID_VALUE;
    wait_for_all(context.tails());
    munmap(address, Space::get().remove_host(base));
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostRegister(void* address, size_t bytes, unsigned /*flags*/) {
  return enter_context(__func__,
                       [&](Context& context) { return register_host(context, address, bytes); });
}

CUresult cuMemHostRegister_v2(void* address, size_t bytes, unsigned /*flags*/) {
  return enter_context(__func__,
                       [&](Context& context) { return register_host(context, address, bytes); });
}

CUresult cuMemHostUnregister(void* address) {
  return enter_context(__func__, [&](Context&) {
    return Space::get().remove_host(reinterpret_cast<std::uintptr_t>(address)) == 0
               ? CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED
               : CUDA_SUCCESS;
  });
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* address, void* host, unsigned flags) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    const auto base = reinterpret_cast<CUdeviceptr>(host);
    if (address == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const auto kind = Space::get().find(base).kind;
    if (kind != Place::Kind::kHost && kind != Place::Kind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    *address = base;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostGetFlags(unsigned* flags, void* host) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (flags == nullptr ||
        Space::get().find(reinterpret_cast<CUdeviceptr>(host)).kind != Place::Kind::kHost) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    const Place place = Space::get().find(address);
    if (place.kind != Place::Kind::kMapped && place.kind != Place::Kind::kAllocated) {
      return CUDA_ERROR_NOT_FOUND;
    }
    if (base != nullptr) *base = place.base;
    if (bytes != nullptr) *bytes = place.bytes;
    return CUDA_SUCCESS;
  });
}
