// What a member says of itself in the pool, summed up from its buffers and workers.
#pragma once

#include "policy/ledger/ledger.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Looks at every piece of every buffer of the device: a few times a second, not per step.
// `longest_request`: what the model's longest request takes, in bytes of its blocks.
ledger::Figures figures_of(const cache::Registry& registry, driver::DeviceId device,
                           Bytes longest_request) noexcept;

}  // namespace kvcached::member
