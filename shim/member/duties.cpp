#include "shim/member/duties.hpp"

#include <algorithm>

#include "shim/member/caches.hpp"

namespace kvcached::member {
namespace {

Pages awaited(const cache::Cache& cache) noexcept {
  return cache.waits_for_pool() ? cache.stats().want : Pages();
}

// What the process's caches may have in use of `reuse`. The rest is in buffers that give nothing.
Pages left_for_caches(Pages reuse, const cache::Registry& registry,
                      driver::DeviceId device) noexcept {
  try {
    for (const auto& buffer : registry.buffers()) {
      if (buffer->device() != device) continue;
      if (dynamic_cast<const cache::Cache*>(buffer->worker().get()) == nullptr)
        reuse = reuse.minus_clamped(buffer->held());
    }
  } catch (...) {
    return reuse;  // the agent, whose means this is, comes by again
  }
  return reuse;
}

}  // namespace

void obey(const ledger::Duty& duty, bool trimming, const cache::Registry& registry,
          driver::DeviceId device) noexcept {
  // What one cache waits for, its siblings give first. To the pool they are one tenant: what they
  // hold idle counts as kept for the claim, so that nobody else would be asked for it.
  Pages for_siblings;
  Pages all;
  for_caches(registry, device, [&](const cache::Cache& cache) {
    const Pages want = awaited(cache);
    for_siblings += want;
    all += cache.in_use_pages() + want;
  });
  const Pages reuse =
      duty.reuse < Pages::max() ? left_for_caches(duty.reuse, registry, device) : duty.reuse;
  Pages left = duty.reclaim;
  for_caches(registry, device, [&](cache::Cache& cache) {
    // What is in use above the process's share goes when its holder can do without it, from each
    // by what it uses.
    const Pages in_use = cache.in_use_pages();
    const Pages above = in_use.minus_clamped(part_of(reuse, in_use + awaited(cache), all));
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
