// The scratch extents of one device: one of each size, to which the unbacked pieces of all buffers
// are aliased, so that a stray access is harmless.
//
// They are overhead of the library and not charged to the pool. The largest is bounded by the
// device's size (a 512th), all of them together by twice that.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "policy/units.hpp"
#include "shim/cache/page_runs.hpp"
#include "shim/cache/result.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::cache {

// Thread-safe.
class Scratch {
 public:
  Scratch(driver::Driver& driver, driver::DeviceId device) noexcept;
  ~Scratch() = default;  // the extents belong to the process; buffers give them back one by one
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  driver::DeviceId device() const noexcept { return device_; }

  // The largest size that suits the device. pre: none; asks the driver once.
  Order largest() noexcept;

  // Holds the extent of this size until give(). Made on first use.
  Result take(Order order) noexcept;
  // pre: one take(order) not yet given back, and no alias of the taker left. The last one releases
  // the extent.
  void give(Order order) noexcept;

  // Maps the extent of this size at `at`, and takes that mapping away again; as Driver::map() and
  // unmap(). pre: taken.
  driver::Status alias(Order order, driver::Address at) noexcept;
  driver::Status unalias(Order order, driver::Address at) noexcept;

  // Releases what nobody uses and the driver did not let go.
  void tend() noexcept;

  // Physical memory held. Waits for no driver call.
  Bytes bytes() const noexcept;

 private:
  struct Extent {
    // Held across every driver call about the extent: driver 580 answers 999 to cuMemMap and
    // cuMemSetAccess now and then where several threads map one handle at the same time, be it at
    // different addresses [seen on an H100]. It never did for a handle that one thread maps, so
    // backing takes no lock here.
    std::mutex mutex;
    driver::Handle handle;
    std::uint32_t users = 0;
    std::atomic<bool> made = false;  // written under the lock
  };
  void release(Extent& extent) noexcept;

  driver::Driver& driver_;
  const driver::DeviceId device_;
  std::array<Extent, kMaxOrder + 1> extents_{};
  std::mutex asking_;  // guards the rest
  Order largest_ = 0;
  bool asked_ = false;
};

}  // namespace kvcached::cache
