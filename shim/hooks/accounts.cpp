#include "shim/hooks/accounts.hpp"

#include <algorithm>
#include <new>

#include "shim/driver/immortal.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {

using driver::Address;
using driver::DeviceId;

// Where an entry is listed, its device is, too: that comes first, as either may fail.
void Accounts::took(Address at, Taken what) noexcept try {
  const std::lock_guard lock(mutex_);
  Usage& held = held_[what.device.ordinal];
  if (plain_.emplace(at, what).second) {
    held.add(what.size);
  }
} catch (const std::bad_alloc&) {
}

void Accounts::Usage::add(Bytes size) noexcept {
  now += size;
  peak = std::max(peak, now);
}

std::optional<Taken> Accounts::gave(Address at) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = plain_.find(at);
  if (found == plain_.end()) {
    return std::nullopt;
  }
  const Taken what = found->second;
  plain_.erase(found);
  drop(what);
  return what;
}

void Accounts::context_gone(driver::ContextId context) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(plain_, [&](const auto& entry) {
    const bool gone = entry.second.context == context;
    if (gone) drop(entry.second);
    return gone;
  });
}

void Accounts::drop(Taken what) noexcept {
  held_.find(what.device.ordinal)->second.now -= what.size;
}

void Accounts::created(std::uint64_t handle, Taken what) noexcept try {
  const std::lock_guard lock(mutex_);
  Usage& held = held_[what.device.ordinal];
  if (extents_.emplace(handle, Extent{what, 1}).second) {
    held.add(what.size);
  }
} catch (const std::bad_alloc&) {
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

void Accounts::mapped(Address at, std::uint64_t handle) noexcept try {
  const std::lock_guard lock(mutex_);
  const auto found = extents_.find(handle);
  if (found != extents_.end() && mappings_.emplace(at, handle).second) {
    ++found->second.users;
  }
} catch (const std::bad_alloc&) {
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
  drop(what);
}

Accounts::Usage Accounts::on(DeviceId device) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = held_.find(device.ordinal);
  return found == held_.end() ? Usage{} : found->second;
}

Bytes Accounts::held(DeviceId device) noexcept { return on(device).now; }

Bytes Accounts::peak(DeviceId device) noexcept { return on(device).peak; }

Bytes Accounts::first_outside(DeviceId device, View view, Bytes value) noexcept try {
  const std::lock_guard lock(mutex_);
  return outside_.emplace(std::pair(device.ordinal, view), value).first->second;
} catch (const std::bad_alloc&) {
  return value;
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
