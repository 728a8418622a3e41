// What the pool asks of this process, handed to its caches.
#pragma once

#include <cstddef>

#include "policy/ledger/ledger.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Lets the caches of a device give back what others wait for; what is not idle in them becomes
// pressure on those who hold their blocks. Never waits for the driver.
void obey(const ledger::Duty& duty, const cache::Registry& registry,
          driver::DeviceId device) noexcept;

// What others plan with, in so far as it changes at once when an engine frees or takes blocks.
struct Standing {
  std::size_t caches = 0;
  Pages in_use;
  bool waits = false;  // somebody here waits for blocks
};
Standing standing_of(const cache::Registry& registry, driver::DeviceId device) noexcept;

}  // namespace kvcached::member
