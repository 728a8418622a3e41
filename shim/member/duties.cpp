#include "shim/member/duties.hpp"

#include <algorithm>

#include "shim/cache/cache.hpp"

namespace kvcached::member {

void obey(const ledger::Duty& duty, const cache::Registry& registry,
          driver::DeviceId device) noexcept {
  try {
    Pages left = duty.reclaim;
    for (const auto& worker : registry.workers()) {
      auto* const cache = dynamic_cast<cache::Cache*>(worker.get());
      if (cache == nullptr || cache->device() != device) continue;
      // What is in use above the tenant's share goes when its holder can do without it.
      const Pages above = cache->in_use_pages().minus_clamped(duty.reuse);
      const Pages wanted = std::max(left, above);
      const Pages found = cache->press(wanted, static_cast<bool>(above));
      cache->set_pressure(wanted.minus_clamped(found));
      cache->pool_changed();
      left = left.minus_clamped(found);
    }
  } catch (...) {
    // No memory for the list: done at the next wake.
  }
}

Standing standing_of(const cache::Registry& registry, driver::DeviceId device) noexcept {
  Standing sum;
  try {
    for (const auto& worker : registry.workers()) {
      const auto* const cache = dynamic_cast<const cache::Cache*>(worker.get());
      if (cache == nullptr || cache->device() != device) continue;
      ++sum.caches;
      sum.in_use += cache->in_use_pages();
      sum.waits = sum.waits || cache->waits();
    }
  } catch (...) {
    // No memory for the list: what is missing is told later.
  }
  return sum;
}

}  // namespace kvcached::member
