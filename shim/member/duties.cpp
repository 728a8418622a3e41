#include "shim/member/duties.hpp"

#include <algorithm>

#include "shim/member/caches.hpp"

namespace kvcached::member {

void obey(const ledger::Duty& duty, bool trimming, const cache::Registry& registry,
          driver::DeviceId device) noexcept {
  // What one cache waits for, its siblings give first. To the pool they are one tenant: what they
  // hold idle counts as kept for the claim, so that nobody else would be asked for it.
  Pages for_siblings;
  for_caches(registry, device, [&](const cache::Cache& cache) {
    if (cache.waits_for_pool()) for_siblings += cache.stats().want;
  });
  Pages left = duty.reclaim;
  for_caches(registry, device, [&](cache::Cache& cache) {
    // What is in use above the tenant's share goes when its holder can do without it.
    const Pages above = cache.in_use_pages().minus_clamped(duty.reuse);
    const Pages wanted = std::max(left, above);
    const Pages given = cache.waits_for_pool() ? Pages() : for_siblings;
    const Pages found = cache.press(std::max(wanted, given), static_cast<bool>(above));
    const Pages unused = trimming ? cache.unused_pages() : Pages();
    cache.set_pressure(std::max(wanted.minus_clamped(found), unused));
    cache.pool_changed();
    left = left.minus_clamped(found);
    if (given) for_siblings = for_siblings.minus_clamped(found);
  });
}

void trim(const cache::Registry& registry, driver::DeviceId device) noexcept {
  for_caches(registry, device, [](cache::Cache& cache) { cache.trim(); });
}

}  // namespace kvcached::member
