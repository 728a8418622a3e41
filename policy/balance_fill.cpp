#include "policy/balance.hpp"

namespace kvcached::balance {
namespace {

std::uint64_t weight_of(const Tenant& t) {
  return std::clamp<std::uint64_t>(t.weight, 1, kMostWeight);
}

}  // namespace

// Everybody gets its share by weight of what is left. Whoever falls outside its bounds by that is
// settled at the bound, but only those on the side that weighs more: the other side's may still
// come back inside. At least one is settled in each round.
void fill(std::span<Tenant> tenants, Pages goal) noexcept {
  for (Tenant& t : tenants) t.plan.settled = false;
  Pages rest = goal;
  for (;;) {
    std::uint64_t weights = 0;
    for (const Tenant& t : tenants) {
      if (!t.plan.settled) weights += weight_of(t);
    }
    if (weights == 0) return;
    Pages over;
    Pages under;
    for (Tenant& t : tenants) {
      if (t.plan.settled) continue;
      const Pages share(weight_of(t) * rest.value / weights);
      t.plan.target = std::clamp(share, t.plan.low, t.plan.high);
      over += t.plan.target.minus_clamped(share);
      under += share.minus_clamped(t.plan.target);
    }
    if (!over && !under) return;
    Pages settled;
    for (Tenant& t : tenants) {
      if (t.plan.settled) continue;
      const Pages share(weight_of(t) * rest.value / weights);
      if (over >= under ? share >= t.plan.low : share <= t.plan.high) continue;
      t.plan.settled = true;
      settled += t.plan.target;
    }
    rest -= settled;
  }
}

}  // namespace kvcached::balance
