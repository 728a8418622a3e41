// What a member says of itself in the pool, summed up from its buffers and workers.
#pragma once

#include <optional>

#include "policy/ledger/ledger.hpp"
#include "shim/cache/cache.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Looks at every piece of every buffer of the device: for the agent's thread, not for hot paths.
// `longest_request`: what the model's longest request takes, in bytes of its blocks. None: no
// memory for the lists that it takes.
std::optional<ledger::Figures> figures_of(const cache::Registry& registry, driver::DeviceId device,
                                          Bytes longest_request) noexcept;

// What a cache cannot do without: what is pinned, and one longest request beside it.
Pages least_of(const cache::CacheStats& stats, Bytes longest_request) noexcept;

// Cheap to take, and other than before when the figures that a plan rests on are.
struct Outline {
  std::size_t caches = 0;
  Pages in_use;          // in stripes with live blocks
  bool waiting = false;  // a caller waits for the pool

  bool operator==(const Outline&) const = default;
};
Outline outline_of(const cache::Registry& registry, driver::DeviceId device) noexcept;

}  // namespace kvcached::member
