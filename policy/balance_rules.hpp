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

// The order of claims: the aged one, then by time of waiting. A tenant without a wish is the last.
constexpr bool goes_before(const Tenant& a, const Tenant& b) {
  const auto rank = [](const Tenant& t) {
    return std::tuple(!t.plan.aged, !missing(t), t.plan.queued, t.id);
  };
  return rank(a) < rank(b);
}

}  // namespace kvcached::balance
