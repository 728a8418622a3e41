#include "shim/hooks/accounts.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
CUresult mem_create(
    Next<CUmemGenericAllocationHandle*, std::size_t, const CUmemAllocationProp*, unsigned long long>
        next,
    CUmemGenericAllocationHandle* out, std::size_t size, const CUmemAllocationProp* properties,
    unsigned long long flags) noexcept {
  const CUresult result = next(out, size, properties, flags);
  if (result == CUDA_SUCCESS && properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
      Process::get() != nullptr) {
    // Not the current context's device: the program may have none yet.
    accounts().created(*out, {Bytes(size), driver::DeviceId{properties->location.id}});
  }
  return result;
}

CUresult mem_release(Next<CUmemGenericAllocationHandle> next,
                     CUmemGenericAllocationHandle handle) noexcept {
  // Before the driver, which may give the same handle to another thread right after.
  if (Process::existing() != nullptr) {
    accounts().released(handle);
  }
  return next(handle);
}

CUresult mem_map(
    Next<CUdeviceptr, std::size_t, std::size_t, CUmemGenericAllocationHandle, unsigned long long>
        next,
    CUdeviceptr at, std::size_t size, std::size_t offset, CUmemGenericAllocationHandle handle,
    unsigned long long flags) noexcept {
  const CUresult result = next(at, size, offset, handle, flags);
  if (result == CUDA_SUCCESS && Process::existing() != nullptr) {
    accounts().mapped(at, handle);
  }
  return result;
}

CUresult mem_unmap(Next<CUdeviceptr, std::size_t> next, CUdeviceptr at, std::size_t size) noexcept {
  const CUresult result = next(at, size);
  if (result == CUDA_SUCCESS && Process::existing() != nullptr) {
    accounts().unmapped(at, Bytes(size));
  }
  return result;
}

}  // namespace kvcached::hooks
