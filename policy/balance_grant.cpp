#include <cmath>

#include "policy/balance.hpp"
#include "policy/balance_rules.hpp"

namespace kvcached::balance {

Pages free_pages(const Pool& pool, std::span<const Tenant> tenants) noexcept {
  Pages taken = pool.limbo + pool.untold;
  for (const Tenant& t : tenants) taken += t.charged;
  return pool.capacity().minus_clamped(taken);
}

Pages floors(std::span<const Tenant> tenants) noexcept {
  Pages sum;
  for (const Tenant& t : tenants) sum += floor(t);
  return sum;
}

Pages spare_pages(const Pool& pool, std::span<const Tenant> tenants) noexcept {
  return free_pages(pool, tenants).minus_clamped(floors(tenants));
}

namespace {

// After the driver had less than the pool was promised, floors may exceed what is free. They then
// shrink in proportion: else each would be kept from the last pages for the others' sake.
Pages spare_for(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant) {
  const Pages free = free_pages(pool, tenants);
  const Pages all = floors(tenants);
  const Pages others = all - floor(tenants[tenant]);
  if (all <= free) return free - others;
  const double covered = static_cast<double>(free.value) / static_cast<double>(all.value);
  return free.minus_clamped(
      Pages(static_cast<std::uint64_t>(std::ceil(static_cast<double>(others.value) * covered))));
}

}  // namespace

bool may_promise(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant,
                 Pages min) noexcept {
  const Tenant& own = tenants[tenant];
  return min.minus_clamped(own.charged).minus_clamped(own.limbo) <=
         spare_for(pool, tenants, tenant);
}

Pages grantable(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant,
                Pages wanted) noexcept {
  const Tenant& own = tenants[tenant];
  const Pages room = std::min(wanted, own.max.minus_clamped(own.charged));
  Pages left = spare_for(pool, tenants, tenant);

  // The minimum is unconditional.
  const Pages promised = std::min({room, floor(own), left});
  left -= promised;

  // Up to the target: after those whose claims are older, and never the last pages, which the aged
  // claim finds free thanks to that. Floors of older ones are not in `left` already.
  const Pages entitled =
      std::min(room - promised, own.plan.target.minus_clamped(own.charged).minus_clamped(promised));
  Pages before;
  Pages others;
  for (const Tenant& t : tenants) {
    if (&t == &own) continue;
    const Pages unfunded = claim_beyond_floor(t);
    others += unfunded;
    if (!goes_before(own, t)) before += unfunded;
  }
  if (!own.plan.aged) before += bare_mark(pool.capacity());
  const Pages due = std::min(entitled, left.minus_clamped(before));
  left -= due;

  // Beyond the target: what nobody claims, as long as there is plenty.
  Pages extra;
  if (pool.level < Level::tight) {
    extra =
        std::min(room - promised - due, left.minus_clamped(others + tight_mark(pool.capacity())));
  }
  return whole(promised + due + extra, own.stripe);
}

Pages grant(const Pool& pool, std::span<Tenant> tenants, std::size_t tenant,
            Pages wanted) noexcept {
  const Pages pages = grantable(pool, tenants, tenant, wanted);
  Tenant& own = tenants[tenant];
  own.charged += pages;
  own.plan.reuse += pages;  // else it could not use them before the next plan
  return pages;
}

void give_back(Tenant& tenant, Pages pages) noexcept {
  tenant.charged = tenant.charged.minus_clamped(pages);
  tenant.plan.reuse = tenant.plan.reuse.minus_clamped(pages);
}

Pages due(const Tenant& tenant, const Rules& rules) noexcept {
  const Pages most = std::max(rules.batch, tenant.stripe);
  return whole(std::min({tenant.plan.reclaim, at_hand(tenant), most}), tenant.stripe);
}

void driver_refused(Pool& pool, std::span<const Tenant> tenants, Pages refused,
                    Pages seen_free) noexcept {
  // At most what it says, and less than what it has just refused, whatever it says.
  const Pages there = std::min(seen_free, refused.minus_clamped(Pages(1)));
  pool.shortfall =
      std::min(pool.size, pool.shortfall + free_pages(pool, tenants).minus_clamped(there));
}

void driver_has(Pool& pool, std::span<const Tenant> tenants, Pages seen_free) noexcept {
  const Pages more = seen_free.minus_clamped(free_pages(pool, tenants));
  pool.shortfall = pool.shortfall.minus_clamped(more);
}

}  // namespace kvcached::balance
