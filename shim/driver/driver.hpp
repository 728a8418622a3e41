// The narrow waist to the GPU: everything the cache and member floors may ask of the driver, with
// contracts. cuda.cpp implements it on the real symbols; tests implement it in memory.
#pragma once

#include <cstdint>
#include <optional>

#include "policy/units.hpp"

namespace kvcached::driver {

enum class Status : std::uint8_t {
  ok,
  out_of_memory,  // the GPU has no free page left; nothing else is broken
  not_now,        // legal later: a stream capture is open, or a fence has not passed yet
  unsupported,    // this driver or device cannot do it
  lost,           // the context is destroyed or holds a sticky error
  failed,         // anything else; the log has the driver's code
};

using Address = std::uint64_t;  // a device address

struct DeviceId {
  int ordinal = -1;
  constexpr auto operator<=>(const DeviceId&) const = default;
};
struct ContextId {
  void* context = nullptr;  // CUcontext
  constexpr auto operator<=>(const ContextId&) const = default;
};
struct Handle {
  std::uint64_t value = 0;  // CUmemGenericAllocationHandle
  constexpr auto operator<=>(const Handle&) const = default;
};
struct Fence {
  void* event = nullptr;  // CUevent
};

struct MemoryInfo {
  Bytes free;
  Bytes total;
};

// Thread-safe. No call changes the caller's current context. No call may be made once process exit
// began: implementations then answer `lost` without touching the driver.
//
// Sizes and addresses are multiples of kPageSize unless said otherwise.
class Driver {
 public:
  virtual ~Driver() = default;

  // Reserves a range of addresses with nothing behind it.
  virtual Status reserve(Bytes size, Address& out) noexcept = 0;
  // pre: nothing in the range is mapped.
  virtual Status unreserve(Address base, Bytes size) noexcept = 0;

  // Creates one physical extent on the device. post: its contents are zero.
  virtual Status create(DeviceId device, Bytes size, Handle& out) noexcept = 0;
  // The memory is free for others after this and after the last unmap.
  virtual Status release(Handle handle) noexcept = 0;

  // Maps a whole extent at `at` and makes it readable and writable for `device` and its enabled
  // peers. pre: the range is reserved and unmapped. All or nothing: on failure nothing is mapped.
  // One handle may be mapped at many addresses.
  virtual Status map(Address at, Bytes size, Handle handle, DeviceId device) noexcept = 0;
  // pre: exactly one earlier map call made [at, at + size). Does not wait for running kernels.
  virtual Status unmap(Address at, Bytes size) noexcept = 0;

  // Takes a fence over all work launched so far in the context, on every stream. `not_now` while
  // any stream captures: asking the driver then would ruin the capture.
  virtual Status fence(ContextId context, Fence& out) noexcept = 0;
  // ok: passed. not_now: not yet. The fence stays the caller's until drop_fence.
  virtual Status fence_passed(ContextId context, Fence fence) noexcept = 0;
  virtual void drop_fence(ContextId context, Fence fence) noexcept = 0;
  // Tries again to drop fences that could not be dropped. Called now and then.
  virtual void tend() noexcept = 0;

  // Waits for all work of the context. `not_now` while a stream captures.
  virtual Status synchronize(ContextId context) noexcept = 0;

  virtual Status memory_info(DeviceId device, MemoryInfo& out) noexcept = 0;

  // Prepares the calling thread for this interface's calls while others capture (relaxed capture
  // mode). Called once by each thread of ours.
  virtual void adopt_thread() noexcept = 0;
};

// What the device has free; none where it cannot be asked now.
inline std::optional<Bytes> free_memory(Driver& driver, DeviceId device) noexcept {
  MemoryInfo info;
  if (driver.memory_info(device, info) != Status::ok) return std::nullopt;
  return info.free;
}

}  // namespace kvcached::driver
