#include "shim/member/duties.hpp"

#include <algorithm>

#include "shim/member/caches.hpp"

namespace kvcached::member {

void obey(const ledger::Duty& duty, bool trimming, const cache::Registry& registry,
          driver::DeviceId device) noexcept {
  Pages left = duty.reclaim;
  for_caches(registry, device, [&](cache::Cache& cache) {
    // What is in use above the tenant's share goes when its holder can do without it.
    const Pages above = cache.in_use_pages().minus_clamped(duty.reuse);
    const Pages wanted = std::max(left, above);
    const Pages found = cache.press(wanted, static_cast<bool>(above));
    const Pages unused = trimming ? cache.unused_pages() : Pages();
    cache.set_pressure(std::max(wanted.minus_clamped(found), unused));
    cache.pool_changed();
    left = left.minus_clamped(found);
  });
}

void trim(const cache::Registry& registry, driver::DeviceId device) noexcept {
  for_caches(registry, device, [](cache::Cache& cache) { cache.trim(); });
}

}  // namespace kvcached::member
