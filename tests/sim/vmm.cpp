// The driver's virtual memory calls.
#include "tests/sim/call.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

bool on_device(const CUmemLocation& location) {
  return location.type == CU_MEM_LOCATION_TYPE_DEVICE;
}

CUresult check(const CUmemAllocationProp* properties) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!on_device(properties->location)) return CUDA_ERROR_NOT_SUPPORTED;
  return find_device(properties->location.id) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuMemAddressReserve(CUdeviceptr* address, size_t bytes, size_t alignment, CUdeviceptr hint,
                             unsigned long long flags) {
  return enter(__func__, [&]() -> CUresult {
    if (address == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    return Space::get().reserve(*address, bytes, alignment, hint);
  });
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes) {
  return enter(__func__, [&] { return Space::get().unreserve(address, bytes); });
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, size_t bytes,
                     const CUmemAllocationProp* properties, unsigned long long flags) {
  return enter(__func__, [&]() -> CUresult {
    if (handle == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult refused = check(properties)) return refused;
    return Space::get().create(*handle, bytes, *properties);
  });
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  const Alone alone(handle);
  return enter(__func__, [&] { return alone ? Space::get().release(handle) : CUDA_ERROR_UNKNOWN; });
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset,
                  CUmemGenericAllocationHandle handle, unsigned long long flags) {
  const Alone alone(handle);
  return enter(__func__, [&]() -> CUresult {
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (offset != 0) return CUDA_ERROR_NOT_SUPPORTED;
    if (!alone) return CUDA_ERROR_UNKNOWN;
    return Space::get().map(address, bytes, handle);
  });
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) {
  const Alone alone(Space::get().handle_at(address));
  return enter(__func__,
               [&] { return alone ? Space::get().unmap(address, bytes) : CUDA_ERROR_UNKNOWN; });
}

CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc* access,
                        size_t count) {
  const Alone alone(Space::get().handle_at(address));
  return enter(__func__, [&]() -> CUresult {
    if (access == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    if (!alone) return CUDA_ERROR_UNKNOWN;
    CUmemAccess_flags widest = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    std::uint64_t devices = 0;
    for (size_t i = 0; i < count; ++i) {
      if (on_device(access[i].location) && find_device(access[i].location.id) == nullptr) {
        return CUDA_ERROR_INVALID_DEVICE;
      }
      if (on_device(access[i].location)) devices |= std::uint64_t{1} << access[i].location.id;
      if (access[i].flags > widest) widest = access[i].flags;
    }
    return Space::get().set_access(address, bytes, widest, devices);
  });
}

CUresult cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location,
                        CUdeviceptr address) {
  return enter(__func__, [&]() -> CUresult {
    if (flags == nullptr || location == nullptr || !on_device(*location)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const Place place = Space::get().find(address);
    if (place.kind != Place::Kind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    const bool has_it = (place.devices >> static_cast<unsigned>(location->id) & 1) != 0;
    *flags = has_it ? place.access : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetAllocationGranularity(size_t* bytes, const CUmemAllocationProp* properties,
                                       CUmemAllocationGranularity_flags /*option*/) {
  return enter(__func__, [&]() -> CUresult {
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult refused = check(properties)) return refused;
    *bytes = kPageBytes;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                CUmemGenericAllocationHandle handle) {
  return enter(__func__, [&]() -> CUresult {
    if (properties == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return Space::get().properties(*properties, handle);
  });
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  return enter(__func__, [&]() -> CUresult {
    if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return Space::get().retain(*handle, reinterpret_cast<CUdeviceptr>(address));
  });
}
