#include "shim/cache/scratch.hpp"

#include <algorithm>

namespace kvcached::cache {

namespace {
constexpr std::uint64_t kShareOfDevice = 512;  // the largest extent is at most 1/512 of it
}

Scratch::Scratch(driver::Driver& driver, driver::DeviceId device) noexcept
    : driver_(driver), device_(device) {}

Order Scratch::largest() noexcept {
  const std::lock_guard lock(mutex_);
  if (!asked_) {
    driver::MemoryInfo info;
    asked_ = driver_.memory_info(device_, info) == driver::Status::ok;
    largest_ = std::min(kMaxOrder, order_within(pages_down(info.total / kShareOfDevice)));
  }
  return largest_;
}

Result Scratch::take(Order order, driver::Handle& out) noexcept {
  const std::lock_guard lock(mutex_);
  Extent& extent = extents_[order];
  if (!extent.made) {
    const driver::Status status = driver_.create(device_, bytes_of(pages_of(order)), extent.handle);
    if (status != driver::Status::ok) return result_of(status);
    extent.made = true;
  }
  ++extent.users;
  out = extent.handle;
  return Result::ok;
}

void Scratch::give(Order order) noexcept {
  const std::lock_guard lock(mutex_);
  Extent& extent = extents_[order];
  if (--extent.users != 0) return;
  // One that the driver does not release stays, for the next to take it or for tend().
  extent.made = driver_.release(extent.handle) != driver::Status::ok;
}

void Scratch::tend() noexcept {
  const std::lock_guard lock(mutex_);
  for (Extent& extent : extents_) {
    if (extent.made && extent.users == 0)
      extent.made = driver_.release(extent.handle) != driver::Status::ok;
  }
}

Bytes Scratch::bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  Bytes sum;
  for (Order order = 0; order <= kMaxOrder; ++order) {
    if (extents_[order].made) sum += bytes_of(pages_of(order));
  }
  return sum;
}

}  // namespace kvcached::cache
