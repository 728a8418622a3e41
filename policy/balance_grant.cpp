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

Pages overdrawn(const Pool& pool, std::span<const Tenant> tenants) noexcept {
  Pages taken = pool.limbo + pool.untold + floors(tenants);
  for (const Tenant& t : tenants) taken += t.charged;
  return taken.minus_clamped(pool.capacity());
}

Pages spare_pages(const Pool& pool, std::span<const Tenant> tenants) noexcept {
  return free_pages(pool, tenants).minus_clamped(floors(tenants));
}

namespace {

// Where the pool has a shortfall, floors may exceed what is free. They then shrink in proportion:
// else each would be kept from the last pages for the others' sake.
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

namespace {

struct Parts {
  Pages promised;  // its minimum, unconditional
  Pages offered;   // for its wish
  Pages open;      // what was offered to nobody
  Pages sum() const { return promised + offered + open; }
};

Parts parts_of(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant, Pages wanted,
               Purpose purpose) {
  const Tenant& own = tenants[tenant];
  const Pages left = spare_for(pool, tenants, tenant);
  Pages room = std::min({wanted, own.max.minus_clamped(own.charged), left});
  Parts parts;
  parts.promised = std::min(room, floor(own));
  room -= parts.promised;
  if (purpose == Purpose::wish) parts.offered = std::min(room, own.plan.offer);
  room -= parts.offered;

  Pages offers;
  for (const Tenant& t : tenants) offers += t.plan.offer;
  const Pages unoffered = left.minus_clamped(floor(own)).minus_clamped(offers);
  const Pages before = own.charged + parts.promised + parts.offered;
  // While something claimed cannot be found, what is free is for that, and not for who has its
  // share already: or what some give back, others would take.
  const bool free_to_all = pool.level < Level::tight && !pool.unmet;
  Pages most = free_to_all ? pool.open : std::min(pool.open, own.plan.target.minus_clamped(before));
  if (purpose == Purpose::running) {
    most = std::max(most, unoffered.minus_clamped(bare_mark(pool.capacity())));
  }
  parts.open = std::min({room, most, unoffered});
  // A part of a wish would lie idle, or be taken again by an older one.
  if (purpose == Purpose::wish && parts.sum() < std::min(wanted, missing(own))) {
    parts.open = Pages();
  }
  const Pages rest = parts.sum() - whole(parts.sum(), own.stripe);
  // What does not make up a stripe stays, first of all what is open.
  const Pages from_open = std::min(rest, parts.open);
  parts.open -= from_open;
  const Pages from_offer = std::min(rest - from_open, parts.offered);
  parts.offered -= from_offer;
  parts.promised -= rest - from_open - from_offer;
  return parts;
}

}  // namespace

Pages grantable(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant, Pages wanted,
                Purpose purpose) noexcept {
  return parts_of(pool, tenants, tenant, wanted, purpose).sum();
}

Pages grant(Pool& pool, std::span<Tenant> tenants, std::size_t tenant, Pages wanted,
            Purpose purpose) noexcept {
  const Parts parts = parts_of(pool, tenants, tenant, wanted, purpose);
  Tenant& own = tenants[tenant];
  own.charged += parts.sum();
  own.plan.reuse += parts.sum();  // else it could not use them before the next plan
  own.plan.offer -= parts.offered;
  pool.open = pool.open.minus_clamped(parts.open);
  return parts.sum();
}

void give_back(Tenant& tenant, Pages pages) noexcept {
  tenant.charged = tenant.charged.minus_clamped(pages);
  tenant.plan.reuse = tenant.plan.reuse.minus_clamped(pages);
}

Pages due(const Tenant& tenant, const Rules& rules) noexcept {
  const Pages most = std::max(rules.batch, tenant.stripe);
  return whole(std::min({tenant.plan.reclaim, at_hand(tenant), most}), tenant.stripe);
}

}  // namespace kvcached::balance
