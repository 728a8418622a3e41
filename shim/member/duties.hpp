// What the pool asks of this process, handed to its caches.
#pragma once

#include "policy/ledger/ledger.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Lets the caches of a device give back what others wait for; what is not idle in them becomes
// pressure on those who hold their blocks. Never waits for the driver.
// `trimming`: their holders are asked for what they do not use, too.
void obey(const ledger::Duty& duty, bool trimming, const cache::Registry& registry,
          driver::DeviceId device) noexcept;

// The caches of the device let go of all that they keep ready. Never waits for the driver.
void trim(const cache::Registry& registry, driver::DeviceId device) noexcept;

}  // namespace kvcached::member
