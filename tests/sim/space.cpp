#include "tests/sim/space.hpp"

#include <sys/mman.h>

#include <iterator>
#include <utility>

namespace sim {

CUdeviceptr reserve_addresses(std::size_t bytes, std::size_t alignment, CUdeviceptr hint) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (hint != 0 && hint % alignment == 0) {
    void* exact = mmap(pointer(hint), bytes, PROT_NONE, kFlags | MAP_FIXED_NOREPLACE, -1, 0);
    if (exact != MAP_FAILED && exact != pointer(hint)) munmap(exact, bytes);
    if (exact == pointer(hint)) return hint;
  }
  const std::size_t padded = bytes + alignment;
  void* const raw = mmap(nullptr, padded, PROT_NONE, kFlags, -1, 0);
  if (raw == MAP_FAILED) return 0;
  const auto start = reinterpret_cast<CUdeviceptr>(raw);
  const CUdeviceptr base = round_up(start, alignment);
  if (base != start) munmap(raw, base - start);
  if (base + bytes != start + padded) munmap(pointer(base + bytes), start + padded - base - bytes);
  return base;
}

bool close_addresses(CUdeviceptr base, std::size_t bytes) {
  return mmap(pointer(base), bytes, PROT_NONE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

void release_addresses(CUdeviceptr base, std::size_t bytes) { munmap(pointer(base), bytes); }

Space& Space::get() {
  static Space& space = *new Space;
  return space;
}

void Space::add_host(std::uintptr_t base, std::size_t bytes, Context& context) {
  const std::lock_guard lock(mutex_);
  host_[base] = {bytes, &context, ++last_id_};
}

std::size_t Space::remove_host(std::uintptr_t base) {
  const std::lock_guard lock(mutex_);
  const auto found = host_.find(base);
  if (found == host_.end()) return 0;
  const std::size_t bytes = found->second.bytes;
  host_.erase(found);
  return bytes;
}

Place Space::find(CUdeviceptr address) {
  const std::lock_guard lock(mutex_);
  Place out;
  const auto within = [&](CUdeviceptr base, std::size_t bytes) { return address - base < bytes; };
  if (const auto found = at_or_before(allocations_, address);
      found != allocations_.end() && within(found->first, found->second.bytes)) {
    const Allocation& allocation = found->second;
    out.kind = Place::Kind::kAllocated;
    out.base = out.range_base = allocation.base;
    out.bytes = out.range_bytes = allocation.bytes;
    out.context = allocation.context;
    out.device = allocation.device;
    out.origin = allocation.origin;
    out.access = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    out.pool = allocation.pool;
    out.id = allocation.id;
    out.sync_memops = allocation.sync_memops;
    out.extent = allocation.extent;
    const auto block = at_or_before(blocks_, address);
    const bool small = block != blocks_.end() && within(block->first, kPageBytes);
    out.extent_base = small ? block->first : allocation.base;
    return out;
  }
  if (const auto range = at_or_before(reservations_, address);
      range != reservations_.end() && within(range->first, range->second)) {
    out.kind = Place::Kind::kReserved;
    out.range_base = range->first;
    out.range_bytes = range->second;
    if (const auto found = at_or_before(mappings_, address);
        found != mappings_.end() && within(found->first, found->second.bytes)) {
      const Mapping& mapping = found->second;
      out.kind = Place::Kind::kMapped;
      out.base = out.extent_base = mapping.base;
      out.bytes = mapping.bytes;
      out.device = mapping.extent->memory().device();
      out.access = mapping.access;
      out.devices = mapping.devices;
      out.id = mapping.id;
      out.extent = mapping.extent;
    }
    return out;
  }
  if (const auto found = at_or_before(host_, address);
      found != host_.end() && within(found->first, found->second.bytes)) {
    out.kind = Place::Kind::kHost;
    out.base = out.range_base = found->first;
    out.bytes = out.range_bytes = found->second.bytes;
    out.context = found->second.context;
    out.id = found->second.id;
  }
  return out;
}

}  // namespace sim
