// The scratch extents of one device: one of each size, to which the unbacked pieces of all buffers
// are aliased, so that a stray access is harmless.
//
// They are overhead of the library and not charged to the pool. The largest is bounded by the
// device's size (a 512th), all of them together by twice that.
#pragma once

#include <array>
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

  // Hands out the extent of this size and holds it until give(). Made on first use.
  Result take(Order order, driver::Handle& out) noexcept;
  // pre: one take(order) not yet given back, and no mapping of the taker left. The last one
  // releases the extent.
  void give(Order order) noexcept;

  // Releases what nobody uses and the driver did not let go.
  void tend() noexcept;

  // Physical memory held.
  Bytes bytes() const noexcept;

 private:
  struct Extent {
    driver::Handle handle;
    std::uint32_t users = 0;
    bool made = false;
  };

  driver::Driver& driver_;
  const driver::DeviceId device_;
  mutable std::mutex mutex_;
  std::array<Extent, kMaxOrder + 1> extents_{};
  Order largest_ = 0;
  bool asked_ = false;
};

}  // namespace kvcached::cache
