#include "shim/hooks/accounts.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/hooks/plain.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
namespace {

bool is_elastic(CUdeviceptr address) noexcept {
  auto* process = Process::existing();
  return process != nullptr && process->find(address).has_value();
}

}  // namespace

CUresult mem_create(
    Next<CUmemGenericAllocationHandle*, std::size_t, const CUmemAllocationProp*, unsigned long long>
        next,
    CUmemGenericAllocationHandle* out, std::size_t size, const CUmemAllocationProp* properties,
    unsigned long long flags) noexcept {
  const bool on_device =
      properties != nullptr && properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
  auto* const process = on_device ? Process::existing() : nullptr;
  const driver::DeviceId device{on_device ? properties->location.id : -1};
  const CUresult result = take_plain(process, device, Bytes(size), Bytes(size),
                                     [=] { return next(out, size, properties, flags); });
  if (result == CUDA_SUCCESS && on_device && Process::get() != nullptr) {
    // Not the current context's device: the program may have none yet.
    accounts().created(*out, {Bytes(size), device});
    if (process != nullptr) process->took_plain(device, Bytes(size));
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
  if (is_elastic(at)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = next(at, size);
  if (result == CUDA_SUCCESS && Process::existing() != nullptr) {
    accounts().unmapped(at, Bytes(size));
  }
  return result;
}

CUresult mem_address_free(Next<CUdeviceptr, std::size_t> next, CUdeviceptr at,
                          std::size_t size) noexcept {
  return is_elastic(at) ? CUDA_ERROR_INVALID_VALUE : next(at, size);
}

CUresult mem_set_access(Next<CUdeviceptr, std::size_t, const CUmemAccessDesc*, std::size_t> next,
                        CUdeviceptr at, std::size_t size, const CUmemAccessDesc* access,
                        std::size_t count) noexcept {
  return is_elastic(at) ? CUDA_ERROR_INVALID_VALUE : next(at, size, access, count);
}

}  // namespace kvcached::hooks
