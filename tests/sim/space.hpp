#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "tests/sim/cuda_api.hpp"
#include "tests/sim/physical.hpp"

namespace sim {

class Context;

/// What an ordinary allocation was made by.
enum class Origin { kDevice, kAsync, kIpc, kManaged };

/// One cuMemAlloc: a place in a block of pages, or a block of its own.
struct Allocation {
  CUdeviceptr base;
  std::size_t bytes;  // as asked for
  Origin origin;
  Context* context;
  int device;
  CUmemoryPool pool;
  std::uint64_t id;
  std::shared_ptr<Extent> extent;
  bool sync_memops = false;
};

/// One cuMemMap.
struct Mapping {
  CUdeviceptr base;
  std::size_t bytes;
  std::shared_ptr<Extent> extent;
  CUmemGenericAllocationHandle handle;
  CUmemAccess_flags access;
  std::uint64_t devices;  // that have it, by bits
  std::uint64_t id;
};

/// What lies at an address.
struct Place {
  enum class Kind { kNothing, kReserved, kMapped, kAllocated, kHost } kind = Kind::kNothing;
  CUdeviceptr base = 0;  // of the mapping or the allocation
  std::size_t bytes = 0;
  CUdeviceptr range_base = 0;  // of the reservation, where there is one
  std::size_t range_bytes = 0;
  Context* context = nullptr;
  int device = 0;
  Origin origin = Origin::kDevice;
  CUmemAccess_flags access = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  std::uint64_t devices = 0;  // of a mapping: those that have it, by bits
  CUmemoryPool pool = nullptr;
  std::uint64_t id = 0;
  bool sync_memops = false;
  std::shared_ptr<Extent> extent;
  CUdeviceptr extent_base = 0;  // the address of the extent's first byte
};

/// The device addresses of this process: reservations, handles, mappings, allocations, and the
/// pinned host memory. Any thread; one lock. Results are those of the driver's functions.
class Space {
 public:
  static Space& get();

  CUresult reserve(CUdeviceptr& out, std::size_t bytes, std::size_t alignment, CUdeviceptr hint);
  CUresult unreserve(CUdeviceptr base, std::size_t bytes);

  CUresult create(CUmemGenericAllocationHandle& out, std::size_t bytes,
                  const CUmemAllocationProp& properties);
  CUresult release(CUmemGenericAllocationHandle handle);
  CUresult retain(CUmemGenericAllocationHandle& out, CUdeviceptr address);
  CUresult properties(CUmemAllocationProp& out, CUmemGenericAllocationHandle handle);

  CUresult map(CUdeviceptr base, std::size_t bytes, CUmemGenericAllocationHandle handle);
  CUresult unmap(CUdeviceptr base, std::size_t bytes);
  /// `devices`: for which, by bits. The pages are in the machine's memory: what one of them may do,
  /// each can.
  CUresult set_access(CUdeviceptr base, std::size_t bytes, CUmemAccess_flags access,
                      std::uint64_t devices);

  CUresult allocate(CUdeviceptr& out, std::size_t bytes, Context& context, Origin origin,
                    CUmemoryPool pool);
  /// Frees what begins at `base`; kIpc only what was opened, else only what was allocated.
  CUresult free(CUdeviceptr base, bool ipc);
  CUresult open_ipc(CUdeviceptr& out, std::shared_ptr<Extent> extent, std::size_t offset,
                    std::size_t bytes, Context& context);
  void free_all_of(const Context& context);

  void add_host(std::uintptr_t base, std::size_t bytes, Context& context);
  /// Bytes of the pinned range that begins at `base`, now forgotten; 0 if there is none.
  std::size_t remove_host(std::uintptr_t base);

  Place find(CUdeviceptr address);
  /// For ordinary allocations only, as the driver has it.
  CUresult set_sync_memops(CUdeviceptr address, bool on);
  /// What cuMemMap has mapped there; 0 for nothing.
  CUmemGenericAllocationHandle handle_at(CUdeviceptr address);

  struct Counts {
    std::size_t reservations, handles, mappings;
  };
  Counts counts();

 private:
  struct Handle {
    std::shared_ptr<Extent> extent;
    CUmemAllocationProp properties;
    unsigned references;
    unsigned mappings;
  };
  struct Block {  // two mebibytes that small allocations share
    CUdeviceptr base;
    std::shared_ptr<Extent> extent;
    Context* context;
    std::map<CUdeviceptr, std::size_t> holes;
  };
  struct Host {
    std::size_t bytes;
    Context* context;
    std::uint64_t id;
  };

  CUresult allocate_small(CUdeviceptr& out, std::size_t bytes, Context& context,
                          std::shared_ptr<Extent>& extent);
  void free_small(CUdeviceptr base, std::size_t bytes);
  void drop_handle_if_unused(CUmemGenericAllocationHandle handle);

  std::mutex mutex_;
  std::uint64_t last_id_ = 0;
  std::map<CUdeviceptr, std::size_t> reservations_;
  std::unordered_map<CUmemGenericAllocationHandle, Handle> handles_;
  std::map<CUdeviceptr, Mapping> mappings_;
  std::map<CUdeviceptr, Allocation> allocations_;
  std::map<CUdeviceptr, Block> blocks_;
  std::map<CUdeviceptr, Host> host_;
};

/// A call about a handle, from its beginning to its end. False where another thread was in one
/// about the same handle already: driver 580 now and then fails such a call with 999, so here all
/// do.
class Alone {
 public:
  explicit Alone(CUmemGenericAllocationHandle handle);
  ~Alone();
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  explicit operator bool() const { return alone_; }

 private:
  const CUmemGenericAllocationHandle handle_;
  bool alone_;
};

/// Address space of our own, inaccessible. 0 where there is none.
CUdeviceptr reserve_addresses(std::size_t bytes, std::size_t alignment, CUdeviceptr hint);
/// Makes it inaccessible again; false where the system refuses.
[[nodiscard]] bool close_addresses(CUdeviceptr base, std::size_t bytes);
void release_addresses(CUdeviceptr base, std::size_t bytes);  // back to the system

inline std::byte* pointer(CUdeviceptr address) { return reinterpret_cast<std::byte*>(address); }

inline CUdeviceptr round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/// The entry of an address-ordered map that begins at or before `address`, or its end.
template <class Map>
auto at_or_before(Map& map, CUdeviceptr address) {
  auto next = map.upper_bound(address);
  return next == map.begin() ? map.end() : std::prev(next);
}

}  // namespace sim
