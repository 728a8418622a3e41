#include "shim/hooks/accounts.hpp"

#include <algorithm>

#include "shim/driver/immortal.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {

using driver::Address;
using driver::DeviceId;

void Accounts::took(Address at, Taken what) noexcept {
  const std::lock_guard lock(mutex_);
  if (plain_.emplace(at, what).second) {
    hold(what);
  }
}

void Accounts::hold(Taken what) noexcept {
  Bytes& held = held_[what.device.ordinal];
  Bytes& peak = peak_[what.device.ordinal];
  held += what.size;
  peak = std::max(peak, held);
}

std::optional<Taken> Accounts::gave(Address at) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = plain_.find(at);
  if (found == plain_.end()) {
    return std::nullopt;
  }
  const Taken what = found->second;
  plain_.erase(found);
  held_[what.device.ordinal] -= what.size;
  return what;
}

void Accounts::created(std::uint64_t handle, Taken what) noexcept {
  const std::lock_guard lock(mutex_);
  if (extents_.emplace(handle, Extent{what, 1}).second) {
    hold(what);
  }
}

void Accounts::retained(std::uint64_t handle) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = extents_.find(handle);
  if (found != extents_.end()) {
    ++found->second.users;
  }
}

void Accounts::released(std::uint64_t handle) noexcept {
  const std::lock_guard lock(mutex_);
  drop_user(handle);
}

void Accounts::mapped(Address at, std::uint64_t handle) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = extents_.find(handle);
  if (found != extents_.end() && mappings_.emplace(at, handle).second) {
    ++found->second.users;
  }
}

void Accounts::unmapped(Address at, Bytes size) noexcept {
  const std::lock_guard lock(mutex_);
  auto mapping = mappings_.lower_bound(at);
  while (mapping != mappings_.end() && mapping->first - at < size.value) {
    drop_user(mapping->second);
    mapping = mappings_.erase(mapping);
  }
}

void Accounts::drop_user(std::uint64_t handle) noexcept {
  const auto found = extents_.find(handle);
  if (found == extents_.end() || --found->second.users != 0) {
    return;
  }
  const Taken what = found->second.what;
  extents_.erase(found);
  held_[what.device.ordinal] -= what.size;
}

Bytes Accounts::held(DeviceId device) noexcept {
  const std::lock_guard lock(mutex_);
  return held_[device.ordinal];
}

Bytes Accounts::peak(DeviceId device) noexcept {
  const std::lock_guard lock(mutex_);
  return peak_[device.ordinal];
}

Bytes Accounts::first_outside(DeviceId device, View view, Bytes value) noexcept {
  const std::lock_guard lock(mutex_);
  return outside_.emplace(std::pair(device.ordinal, view), value).first->second;
}

Accounts& accounts() noexcept {
  static driver::Immortal<Accounts> all;
  static const bool told = [] {
    plain_report = [](DeviceId device) noexcept -> PlainMemory {
      return {accounts().held(device), accounts().peak(device)};
    };
    return true;
  }();
  static_cast<void>(told);
  return all.object;
}

}  // namespace kvcached::hooks
