// The caches of one device among the workers of a process.
#pragma once

#include "shim/cache/cache.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Calls f(cache) for each. False: memory was lacking, for the list or within f, and not all were
// visited. The agent, whose means this is, comes by again.
template <class F>
bool for_caches(const cache::Registry& registry, driver::DeviceId device, F f) noexcept {
  try {
    for (const auto& worker : registry.workers()) {
      auto* const cache = dynamic_cast<cache::Cache*>(worker.get());
      if (cache != nullptr && cache->device() == device) f(*cache);
    }
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace kvcached::member
