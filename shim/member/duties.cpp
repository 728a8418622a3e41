#include "shim/member/duties.hpp"

#include <algorithm>

#include "shim/cache/cache.hpp"

namespace kvcached::member {

void obey(const ledger::Duty& duty, bool trimming, const cache::Registry& registry,
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
      const Pages unused = trimming ? cache->unused_pages() : Pages();
      cache->set_pressure(std::max(wanted.minus_clamped(found), unused));
      cache->pool_changed();
      left = left.minus_clamped(found);
    }
  } catch (...) {
    // No memory for the list: done at the next wake.
  }
}

void trim(const cache::Registry& registry, driver::DeviceId device) noexcept {
  try {
    for (const auto& worker : registry.workers()) {
      auto* const cache = dynamic_cast<cache::Cache*>(worker.get());
      if (cache != nullptr && cache->device() == device) cache->trim();
    }
  } catch (...) {
    // No memory for the list: what is kept ready goes with time.
  }
}

}  // namespace kvcached::member
