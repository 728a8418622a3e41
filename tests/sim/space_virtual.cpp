// The virtual memory calls: reservations, handles, mappings.
#include <sys/mman.h>

#include <unordered_set>
#include <vector>

#include "tests/sim/device.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

int protection(CUmemAccess_flags access) {
  switch (access) {
    case CU_MEM_ACCESS_FLAGS_PROT_READ:
      return PROT_READ;
    case CU_MEM_ACCESS_FLAGS_PROT_READWRITE:
      return PROT_READ | PROT_WRITE;
    default:
      return PROT_NONE;
  }
}

struct Busy {
  std::mutex mutex;
  std::unordered_set<CUmemGenericAllocationHandle> handles;

  static Busy& get() {
    static Busy& busy = *new Busy;
    return busy;
  }
};

bool whole_pages(CUdeviceptr base, std::size_t bytes) {
  return bytes != 0 && base % kPageBytes == 0 && bytes % kPageBytes == 0;
}

}  // namespace

Alone::Alone(CUmemGenericAllocationHandle handle) : handle_(handle) {
  const std::lock_guard lock(Busy::get().mutex);
  alone_ = handle == 0 || Busy::get().handles.insert(handle).second;
}

Alone::~Alone() {
  const std::lock_guard lock(Busy::get().mutex);
  if (alone_) Busy::get().handles.erase(handle_);
}

CUmemGenericAllocationHandle Space::handle_at(CUdeviceptr address) {
  const std::lock_guard lock(mutex_);
  const auto mapping = mappings_.find(address);
  return mapping == mappings_.end() ? 0 : mapping->second.handle;
}

CUresult Space::reserve(CUdeviceptr& out, std::size_t bytes, std::size_t alignment,
                        CUdeviceptr hint) {
  if (bytes == 0 || bytes % kPageBytes != 0 || (alignment & (alignment - 1)) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUdeviceptr base =
      reserve_addresses(bytes, alignment < kPageBytes ? kPageBytes : alignment, hint);
  if (base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  const std::lock_guard lock(mutex_);
  reservations_[base] = bytes;
  out = base;
  return CUDA_SUCCESS;
}

CUresult Space::unreserve(CUdeviceptr base, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = reservations_.find(base);
  if (found == reservations_.end() || found->second != bytes) return CUDA_ERROR_INVALID_VALUE;
  const auto mapping = mappings_.lower_bound(base);
  if (mapping != mappings_.end() && mapping->first < base + bytes) return CUDA_ERROR_INVALID_VALUE;
  reservations_.erase(found);
  release_addresses(base, bytes);
  return CUDA_SUCCESS;
}

CUresult Space::create(CUmemGenericAllocationHandle& out, std::size_t bytes,
                       const CUmemAllocationProp& properties) {
  if (bytes == 0 || bytes % kPageBytes != 0) return CUDA_ERROR_INVALID_VALUE;
  Device* const device = find_device(properties.location.id);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  std::shared_ptr<Extent> extent = device->memory->take(bytes);
  if (extent == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const std::lock_guard lock(mutex_);
  out = ++last_id_;
  handles_.emplace(out, Handle{std::move(extent), properties, 1, 0});
  return CUDA_SUCCESS;
}

void Space::drop_handle_if_unused(CUmemGenericAllocationHandle handle) {
  const auto found = handles_.find(handle);
  if (found->second.references == 0 && found->second.mappings == 0) handles_.erase(found);
}

CUresult Space::release(CUmemGenericAllocationHandle handle) {
  const std::lock_guard lock(mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end() || found->second.references == 0) return CUDA_ERROR_INVALID_VALUE;
  --found->second.references;
  drop_handle_if_unused(handle);
  return CUDA_SUCCESS;
}

CUresult Space::retain(CUmemGenericAllocationHandle& out, CUdeviceptr address) {
  const std::lock_guard lock(mutex_);
  const auto mapping = at_or_before(mappings_, address);
  if (mapping == mappings_.end() || address - mapping->first >= mapping->second.bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  out = mapping->second.handle;
  ++handles_.at(out).references;
  return CUDA_SUCCESS;
}

CUresult Space::properties(CUmemAllocationProp& out, CUmemGenericAllocationHandle handle) {
  const std::lock_guard lock(mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end() || found->second.references == 0) return CUDA_ERROR_INVALID_VALUE;
  out = found->second.properties;
  return CUDA_SUCCESS;
}

CUresult Space::map(CUdeviceptr base, std::size_t bytes, CUmemGenericAllocationHandle handle) {
  if (!whole_pages(base, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end() || found->second.references == 0) return CUDA_ERROR_INVALID_VALUE;
  if (found->second.extent->bytes() != bytes) return CUDA_ERROR_INVALID_VALUE;
  const auto range = at_or_before(reservations_, base);
  if (range == reservations_.end() || base + bytes > range->first + range->second) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto before = at_or_before(mappings_, base + bytes - 1);
  if (before != mappings_.end() && before->first + before->second.bytes > base) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // The pages appear with the access: until then the range is as inaccessible as it was.
  mappings_[base] = {base, bytes,     found->second.extent, handle, CU_MEM_ACCESS_FLAGS_PROT_NONE,
                     0,    ++last_id_};
  ++found->second.mappings;
  return CUDA_SUCCESS;
}

CUresult Space::unmap(CUdeviceptr base, std::size_t bytes) {
  if (!whole_pages(base, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(mutex_);
  const auto first = mappings_.find(base);
  auto last = first;
  CUdeviceptr end = base;
  while (last != mappings_.end() && last->first == end && end < base + bytes) {
    end += last->second.bytes;
    ++last;
  }
  if (end != base + bytes) return CUDA_ERROR_INVALID_VALUE;
  if (!close_addresses(base, bytes)) return CUDA_ERROR_OPERATING_SYSTEM;
  std::vector<CUmemGenericAllocationHandle> handles;
  for (auto mapping = first; mapping != last; ++mapping) handles.push_back(mapping->second.handle);
  mappings_.erase(first, last);
  for (const CUmemGenericAllocationHandle handle : handles) {
    --handles_.at(handle).mappings;
    drop_handle_if_unused(handle);
  }
  return CUDA_SUCCESS;
}

CUresult Space::set_access(CUdeviceptr base, std::size_t bytes, CUmemAccess_flags access,
                           std::uint64_t devices) {
  if (!whole_pages(base, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(mutex_);
  const auto first = mappings_.find(base);
  auto last = first;
  CUdeviceptr end = base;
  while (last != mappings_.end() && last->first == end && end < base + bytes) {
    end += last->second.bytes;
    ++last;
  }
  if (end != base + bytes) return CUDA_ERROR_INVALID_VALUE;
  for (auto mapping = first; mapping != last; ++mapping) {
    if (!mapping->second.extent->map(pointer(mapping->first), protection(access))) {
      return CUDA_ERROR_OPERATING_SYSTEM;  // too many mappings: see README.md
    }
    mapping->second.access = access;
    if (access == CU_MEM_ACCESS_FLAGS_PROT_NONE) {
      mapping->second.devices &= ~devices;
    } else {
      mapping->second.devices |= devices;
    }
  }
  return CUDA_SUCCESS;
}

Space::Counts Space::counts() {
  const std::lock_guard lock(mutex_);
  return {reservations_.size(), handles_.size(), mappings_.size()};
}

}  // namespace sim
