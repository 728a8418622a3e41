// The rules of granting, as functions of the books alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "policy/ledger/layout.hpp"
#include "policy/units.hpp"

namespace kvcached::ledger {

struct TenantBook {
  Pages min;
  Pages max;
  Pages charged;  // by its living members
  Pages limbo;    // of its dead
  bool living = false;

  // What is still kept for it. The limbo of its dead counts as taken: those pages become free
  // when they become its floor again, so the floors stay covered all along. Nothing is kept for
  // a tenant without a living member.
  constexpr Pages floor() const {
    return living ? min.minus_clamped(charged).minus_clamped(limbo) : Pages{};
  }
};

// What the pool may hand out now, which users can change, and the most that any amount in its file
// can be: what is above that is damage.
struct PoolSize {
  Pages now;
  Pages most;
};

struct Books {
  Pages pool;
  Pages most;
  Pages charged;  // by the living, tenants or not
  Pages limbo;
  Pages shortfall;  // of the pool: not there
  std::array<TenantBook, layout::kTenants> tenants;
  std::uint32_t tenants_end = 0;  // no tenant from here on is named by a slot
  std::uint32_t slots_end = 0;    // no slot from here on was ever taken

  constexpr Pages there() const { return pool.minus_clamped(shortfall); }
  constexpr Pages free() const { return there().minus_clamped(charged).minus_clamped(limbo); }

  // All minimums that are promised.
  constexpr Pages promised() const {
    Pages sum;
    for (std::uint32_t i = 0; i < tenants_end; ++i) {
      if (tenants[i].living) sum += tenants[i].min;
    }
    return sum;
  }

  // A user has made the pool or a maximum smaller, or a minimum larger, or plain memory has grown,
  // and it is not so yet.
  constexpr bool exceeded() const {
    Pages taken = charged + limbo;
    for (std::uint32_t i = 0; i < tenants_end; ++i) {
      taken += tenants[i].floor();
      if (tenants[i].living && tenants[i].charged > tenants[i].max) return true;
    }
    return taken > there();
  }

  // What remains for `tenant` when the others' floors stay untouched.
  constexpr Pages spare_for(std::uint32_t tenant) const {
    Pages others;
    for (std::uint32_t i = 0; i < tenants_end; ++i) {
      if (i != tenant) others += tenants[i].floor();
    }
    return free().minus_clamped(others);
  }
};

// First come, first served: all of `pages` or none.
constexpr bool may_grant(const Books& books, std::uint32_t tenant, Pages pages) {
  const TenantBook& own = books.tenants[tenant];
  return pages <= own.max.minus_clamped(own.charged) && pages <= books.spare_for(tenant);
}

// The most that a tenant can ever hold while limits and plain memory are what they are: its
// maximum, and no page of the other minimums. What others hold beyond those comes back sooner or
// later.
constexpr Pages reach(const Books& books, std::uint32_t tenant) {
  const TenantBook& own = books.tenants[tenant];
  const Pages others = books.promised().minus_clamped(own.living ? own.min : Pages{});
  return std::min(own.max, books.there().minus_clamped(others));
}

// Whether the pool can keep `min` for a tenant that has no living member yet.
constexpr bool may_promise(const Books& books, std::uint32_t tenant, Pages min) {
  return min.minus_clamped(books.tenants[tenant].limbo) <= books.spare_for(tenant);
}

}  // namespace kvcached::ledger
