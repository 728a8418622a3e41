// What the pool asks of this process, handed to its caches.
#pragma once

#include "policy/ledger/ledger.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Lets the caches of a device give back what others wait for; what is not idle in them becomes
// pressure on those who hold their blocks. Never waits for the driver.
void obey(const ledger::Duty& duty, const cache::Registry& registry,
          driver::DeviceId device) noexcept;

}  // namespace kvcached::member
