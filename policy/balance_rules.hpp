// Rules that planning and granting must see alike.
#pragma once

#include <span>
#include <tuple>

#include "policy/balance.hpp"

namespace kvcached::balance {

constexpr Pages tight_mark(Pages capacity) { return capacity / 50; }
constexpr Pages bare_mark(Pages capacity) { return capacity / 100; }

Pages floors(std::span<const Tenant> tenants) noexcept;

// What a claim needs of the pages that are not promised to anyone: its floor is there already.
constexpr Pages claim_beyond_floor(const Tenant& t) { return claim(t).minus_clamped(floor(t)); }

// The order of wishes: the aged one, those whose turn it is, the others; each by time of waiting,
// and last those that their engines can do without.
constexpr bool goes_before(const Tenant& a, const Tenant& b) {
  const auto rank = [](const Tenant& t) {
    const bool waits = t.want && !t.stopped;
    return std::tuple(!t.plan.aged, !(waits && t.plan.entitled), !waits, serves_itself(t),
                      t.plan.queued, t.id);
  };
  return rank(a) < rank(b);
}

// Sets offers and reclaims, and what is open to all, from `spare` pages. Returns what was not
// found: for claims, and of what the pool is overdrawn by.
Pages settle_claims(Pool& pool, std::span<Tenant> tenants, const Rules& rules,
                    Pages spare) noexcept;

}  // namespace kvcached::balance
