// Ordinary allocations. Small ones share blocks of two mebibytes, as on a real GPU.
#include <sys/mman.h>

#include <iterator>
#include <utility>

#include "tests/sim/context.hpp"
#include "tests/sim/device.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

constexpr std::size_t kSmall = kPageBytes / 2;
constexpr std::size_t kAlignment = 512;

/// Shows the extent at new addresses; 0 where the system refuses.
CUdeviceptr place(const Extent& extent) {
  const std::size_t bytes = extent.bytes();
  const CUdeviceptr base = reserve_addresses(bytes, kPageBytes, 0);
  if (base != 0 && !extent.map(pointer(base), PROT_READ | PROT_WRITE)) {
    release_addresses(base, bytes);
    return 0;
  }
  return base;
}

}  // namespace

CUresult Space::allocate(CUdeviceptr& out, std::size_t bytes, Context& context, Origin origin,
                         CUmemoryPool pool) {
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<Extent> extent;
  CUdeviceptr base = 0;
  if (bytes > kSmall) {
    extent = context.device().memory->take(bytes);
    if (extent == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    base = place(*extent);
    if (base == 0) return CUDA_ERROR_OPERATING_SYSTEM;
  }
  const std::lock_guard lock(mutex_);
  if (base == 0) {
    const CUresult result = allocate_small(base, bytes, context, extent);
    if (result != CUDA_SUCCESS) return result;
  }
  allocations_[base] = {
      base, bytes, origin, &context, context.device().ordinal, pool, ++last_id_, std::move(extent),
      false};
  out = base;
  return CUDA_SUCCESS;
}

CUresult Space::allocate_small(CUdeviceptr& out, std::size_t bytes, Context& context,
                               std::shared_ptr<Extent>& extent) {
  const std::size_t rounded = round_up(bytes, kAlignment);
  for (auto& [base, block] : blocks_) {
    if (block.context != &context) continue;
    for (auto hole = block.holes.begin(); hole != block.holes.end(); ++hole) {
      const auto [at, room] = *hole;
      if (room < rounded) continue;
      block.holes.erase(hole);
      if (room > rounded) block.holes[at + rounded] = room - rounded;
      out = at;
      extent = block.extent;
      return CUDA_SUCCESS;
    }
  }
  extent = context.device().memory->take(kPageBytes);
  if (extent == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  out = place(*extent);
  if (out == 0) return CUDA_ERROR_OPERATING_SYSTEM;
  blocks_[out] = {out, extent, &context, {{out + rounded, kPageBytes - rounded}}};
  return CUDA_SUCCESS;
}

void Space::free_small(CUdeviceptr base, std::size_t bytes) {
  const auto found = at_or_before(blocks_, base);
  auto& holes = found->second.holes;
  auto hole = holes.emplace(base, round_up(bytes, kAlignment)).first;
  const auto next = std::next(hole);
  if (next != holes.end() && hole->first + hole->second == next->first) {
    hole->second += next->second;
    holes.erase(next);
  }
  if (hole != holes.begin()) {
    const auto before = std::prev(hole);
    if (before->first + before->second == hole->first) {
      before->second += hole->second;
      holes.erase(hole);
      hole = before;
    }
  }
  if (hole->second == kPageBytes) {
    release_addresses(found->first, kPageBytes);
    blocks_.erase(found);
  }
}

CUresult Space::free(CUdeviceptr base, bool ipc) {
  const std::lock_guard lock(mutex_);
  const auto found = allocations_.find(base);
  if (found == allocations_.end() || (found->second.origin == Origin::kIpc) != ipc) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Allocation allocation = std::move(found->second);
  allocations_.erase(found);
  if (ipc || allocation.bytes > kSmall) {
    const std::size_t bytes = allocation.extent->bytes();
    release_addresses(base / kPageBytes * kPageBytes, bytes);
  } else {
    free_small(base, allocation.bytes);
  }
  return CUDA_SUCCESS;
}

CUresult Space::set_sync_memops(CUdeviceptr address, bool on) {
  const Place::Kind kind = find(address).kind;
  const std::lock_guard lock(mutex_);
  const auto found = at_or_before(allocations_, address);
  if (kind == Place::Kind::kMapped) return CUDA_ERROR_NOT_SUPPORTED;
  if (kind != Place::Kind::kAllocated || found == allocations_.end()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  found->second.sync_memops = on;
  return CUDA_SUCCESS;
}

CUresult Space::open_ipc(CUdeviceptr& out, std::shared_ptr<Extent> extent, std::size_t offset,
                         std::size_t bytes, Context& context) {
  const CUdeviceptr base = place(*extent);
  if (base == 0) return CUDA_ERROR_OPERATING_SYSTEM;
  const std::lock_guard lock(mutex_);
  out = base + offset;
  allocations_[out] = {out,     bytes,      Origin::kIpc,      &context, context.device().ordinal,
                       nullptr, ++last_id_, std::move(extent), false};
  return CUDA_SUCCESS;
}

void Space::free_all_of(const Context& context) {
  std::vector<std::pair<CUdeviceptr, bool>> mine;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [base, allocation] : allocations_) {
      if (allocation.context == &context)
        mine.emplace_back(base, allocation.origin == Origin::kIpc);
    }
  }
  for (const auto& [base, ipc] : mine) free(base, ipc);
}

}  // namespace sim
