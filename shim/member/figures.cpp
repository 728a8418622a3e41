#include "shim/member/figures.hpp"

#include <algorithm>
#include <vector>

#include "shim/cache/cache.hpp"
#include "shim/cache/ranges.hpp"
#include "shim/member/caches.hpp"

namespace kvcached::member {
namespace {

// What is free beside live blocks is used first. Where the holder keeps free blocks of its own,
// what is more than it will use soon can be had from it; not all, or its next step would have to
// wait.
Pages demand_of(const cache::CacheStats& stats) noexcept {
  const Pages at_hand = stats.lends ? std::min(stats.fragmented, stats.used / 4 + stats.stripe * 2)
                                    : stats.fragmented;
  return stats.used + std::max(at_hand, stats.expected);
}

}  // namespace

Pages least_of(const cache::CacheStats& stats, Bytes longest_request) noexcept {
  const Pages request = pages_up(std::min(longest_request, bytes_of(stats.all)));
  const Pages stripe = std::max(stats.stripe, Pages(1));
  const Pages stripes = stripe * (request / stripe + (request.value % stripe.value != 0 ? 1 : 0));
  return std::min(stats.all, stats.pinned + stripes);
}

std::optional<ledger::Figures> figures_of(const cache::Registry& registry, driver::DeviceId device,
                                          Bytes longest_request) noexcept {
  ledger::Figures sum;
  try {
    std::vector<const cache::Worker*> seen;
    for (const auto& buffer : registry.buffers()) {
      if (buffer->device() != device) continue;
      sum.reserved += buffer->requested();
      const auto worker = buffer->worker();
      const auto* const cache = dynamic_cast<const cache::Cache*>(worker.get());
      if (cache == nullptr) {  // whole, or by byte ranges
        sum.used += buffer->held();
        sum.demand += buffer->held();
      }
      if (worker == nullptr || std::find(seen.begin(), seen.end(), worker.get()) != seen.end())
        continue;
      seen.push_back(worker.get());
      if (cache != nullptr) {
        const cache::CacheStats stats = cache->stats();
        sum.used += stats.used;
        sum.fragmented += stats.fragmented;
        sum.warm += stats.warm;
        sum.want += stats.want;
        sum.demand += demand_of(stats);
        if (!sum.stripe || stats.stripe < sum.stripe) sum.stripe = stats.stripe;
        sum.grows += stats.grows;
        sum.releases += stats.releases;
        sum.short_grants += stats.short_grants;
        sum.least += least_of(stats, longest_request);
        sum.evicted += stats.evicted;
        sum.stripes_kept.hits += stats.warm_hits;
        sum.stripes_kept.misses += stats.warm_misses;
        sum.stripes_kept.in_vain += stats.warm_in_vain;
      } else if (const auto* const ranges = dynamic_cast<const cache::Ranges*>(worker.get())) {
        sum.grows += ranges->grows();
        sum.releases += ranges->releases();
        sum.short_grants += ranges->short_grants();
      }
    }
  } catch (...) {
    return std::nullopt;
  }
  return sum;
}

Outline outline_of(const cache::Registry& registry, driver::DeviceId device) noexcept {
  Outline sum;
  for_caches(registry, device, [&](const cache::Cache& cache) {
    ++sum.caches;
    sum.in_use += cache.in_use_pages();
    sum.waiting = sum.waiting || cache.waits_for_pool();
  });
  return sum;
}

}  // namespace kvcached::member
