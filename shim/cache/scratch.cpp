#include "shim/cache/scratch.hpp"

#include <algorithm>

namespace kvcached::cache {

namespace {

constexpr std::uint64_t kShareOfDevice = 512;  // the largest extent is at most 1/512 of it

Bytes bytes_of_order(Order order) { return bytes_of(pages_of(order)); }

}  // namespace

Scratch::Scratch(driver::Driver& driver, driver::DeviceId device) noexcept
    : driver_(driver), device_(device) {}

Order Scratch::largest() noexcept {
  const std::lock_guard lock(asking_);
  if (!asked_) {
    driver::MemoryInfo info;
    asked_ = driver_.memory_info(device_, info) == driver::Status::ok;
    largest_ = std::min(kMaxOrder, order_within(pages_down(info.total / kShareOfDevice)));
  }
  return largest_;
}

Result Scratch::take(Order order) noexcept {
  Extent& extent = extents_[order];
  const std::lock_guard lock(extent.mutex);
  if (!extent.made) {
    const driver::Status status = driver_.create(device_, bytes_of_order(order), extent.handle);
    if (status != driver::Status::ok) return result_of(status);
    extent.made = true;
  }
  ++extent.users;
  return Result::ok;
}

void Scratch::give(Order order) noexcept {
  Extent& extent = extents_[order];
  const std::lock_guard lock(extent.mutex);
  if (--extent.users == 0) release(extent);
}

// One that the driver does not release stays, for the next to take it or for tend().
void Scratch::release(Extent& extent) noexcept {
  extent.made = driver_.release(extent.handle) != driver::Status::ok;
}

driver::Status Scratch::alias(Order order, driver::Address at) noexcept {
  Extent& extent = extents_[order];
  const std::lock_guard lock(extent.mutex);
  return driver_.map(at, bytes_of_order(order), extent.handle, device_);
}

driver::Status Scratch::unalias(Order order, driver::Address at) noexcept {
  Extent& extent = extents_[order];
  const std::lock_guard lock(extent.mutex);
  return driver_.unmap(at, bytes_of_order(order));
}

void Scratch::tend() noexcept {
  for (Extent& extent : extents_) {
    if (!extent.made) continue;
    const std::lock_guard lock(extent.mutex);
    if (extent.made && extent.users == 0) release(extent);
  }
}

Bytes Scratch::bytes() const noexcept {
  Bytes sum;
  for (Order order = 0; order <= kMaxOrder; ++order) {
    if (extents_[order].made) sum += bytes_of_order(order);
  }
  return sum;
}

}  // namespace kvcached::cache
