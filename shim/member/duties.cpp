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
      left = left.minus_clamped(cache->press(left));
      cache->pool_changed();
      // What is in use above the tenant's share goes when its holder can do without it.
      const Pages in_use = cache->in_use_pages();
      const Pages above = std::max(left, in_use.minus_clamped(duty.reuse));
      cache->set_pressure(above);
    }
  } catch (...) {
    // No memory for the list: done at the next wake.
  }
}

}  // namespace kvcached::member
