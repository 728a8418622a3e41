// Who gets how much of a pool, as functions of plain records: no clock, no file, no memory of their
// own. The caller holds whatever lock guards the records, calls `plan` after every change, and lets
// every tenant act on what it says.
//
// All amounts that move are whole stripes of the one who gets or gives: less than one of its
// stripes is of no use to it, or cannot be had from it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "policy/clock.hpp"
#include "policy/units.hpp"

namespace kvcached::balance {

inline constexpr std::size_t kMostTenants = 1024;  // of one plan
inline constexpr Pages kMostPages{1ULL << 40};     // so that products of weights stay in range
inline constexpr std::uint32_t kMostWeight = 10'000;

// How short a pool is of pages that are nobody's and not promised. Each level includes what those
// before it change.
enum class Level : std::uint8_t {
  rest,   // nothing
  brisk,  // warm stripes decay four times as fast
  tight,  // warm stripes fall to what refilling needs; nothing is kept warm beyond a target, no
          // wish is met but the aged one; what runs grows on
  bare,   // nothing is kept warm; growth within minimums and for the aged claim only
};

struct Rules {
  // A wish that waited longer becomes the aged claim, which comes before all others and is given
  // all there is. Shorter, and in a full pool everything goes to one large wish after the other;
  // longer, and such wishes wait for nothing.
  Duration age = std::chrono::seconds(10);
  // An aged claim that is not met in this time waits anew, as if it were young: else a wish that
  // nobody can meet would be the oldest for ever. Longer than a request lives, as a rule: so long
  // it can take until pages in use come free.
  Duration turn = std::chrono::seconds(30);
  // An idle page weighs as much as so many used ones when victims are chosen.
  std::uint32_t idle_tax = 4;
  // Who would take must fund its pages better than the victim by this much, or the two would pass
  // the same stripe to and fro.
  std::uint32_t proximity_percent = 10;
  // Most pages that a tenant gives back in one tick (its own stripe, where that is larger).
  Pages batch{64};
};

// What `plan` decides for a tenant, and remembers of it for the next plan.
struct Decision {
  Pages low;      // bounds of the target
  Pages high;     //
  Pages target;   // its share now
  Pages offer;    // beyond its floor, for its wish: as much may be granted at once
  Pages lacks;    // of its claim: neither free, nor on its way, nor to be taken from anybody
  Pages reclaim;  // to be given back, in whole stripes
  Pages reuse;    // it may not have more than this in use without a new grant; if it has, its
                  // engine is asked for the rest

  bool entitled = false;  // it uses less than its share, so that it may begin another wish
  bool aged = false;      // comes before all others
  Instant since{};        // of the wish that the next two belong to
  Instant queued{};       // `since`, or the end of the turn that it had in vain
  Instant turn_began{};   // if aged

  // While a plan is being made.
  bool settled = false;
  Pages tried;
};

// One tenant as the pool sees it.
struct Tenant {
  // Unique in the pool. Whatever else is equal, the smaller goes first: so nothing depends on the
  // order of the records.
  std::uint64_t id = 0;
  Pages min;  // promised by may_promise
  Pages max = kMostPages;
  std::uint32_t weight = 1;
  Pages stripe{1};  // what it can take or give at least

  Pages charged;  // by its living members
  Pages limbo;    // of its dead ones, not yet freed
  Pages used;     // of those charged: with a live block in the stripe, or on the way to it
  Pages loose;    // of those used: its engine has the blocks, but no use for them now
  Pages leaving;  // of those charged: on the way back to the pool
  // What its oldest waiting request needs, pages kept ready for it included; of one request only,
  // so that it can be met. 0: nothing waits.
  Pages want;
  Instant since{};  // when that request began to wait
  Pages demand;     // what it uses, and what it has announced that it will, the wish included
  // False: it cannot tell used pages from idle ones, or cannot hold its engine back. It grows by
  // grants and gives nothing back.
  bool elastic = true;
  bool stopped = false;  // it gives nothing back, and its wish does not count

  Decision plan;
};

struct Pool {
  Pages size;
  Pages limbo;      // of all dead, tenants' or not
  Pages untold;     // charged by members that have no record
  Pages shortfall;  // of size: not there, since plain memory or others took it
  // What `plan` decides for all.
  Level level = Level::rest;
  Pages open;   // spare and offered to nobody
  Pages unmet;  // claimed, and neither free nor on its way

  constexpr Pages capacity() const { return size.minus_clamped(shortfall); }
};

// ---- what follows from a record ----
constexpr Pages whole(Pages pages, Pages stripe) {
  return stripe.value > 1 ? stripe * (pages / stripe) : pages;
}
constexpr Pages whole_up(Pages pages, Pages stripe) {
  return stripe.value > 1 ? stripe * ((pages + stripe - Pages(1)) / stripe) : pages;
}

// Gives nothing back, whatever the plan says.
constexpr bool is_firm(const Tenant& t) { return t.stopped || !t.elastic; }
// Backed, without a live block.
constexpr Pages at_hand(const Tenant& t) {
  return is_firm(t) ? Pages() : t.charged.minus_clamped(t.used).minus_clamped(t.leaving);
}
// Kept for the own wish. Not idle: a waiter whose partial grants count as idle is taxed for them,
// gives them back and starves.
constexpr Pages held(const Tenant& t) { return std::min(t.want, at_hand(t)); }
constexpr Pages idle(const Tenant& t) { return at_hand(t) - held(t); }
constexpr Pages missing(const Tenant& t) {
  return t.stopped ? Pages() : whole_up(t.want - held(t), t.stripe);
}
// Its engine can begin what waits with blocks that it has and does not use. Such a wish is met from
// what is free or idle, but nobody's engine is asked for it: two that work in turns would drop each
// other's cached blocks for good.
constexpr bool serves_itself(const Tenant& t) {
  return missing(t) && missing(t) <= t.loose && !t.plan.aged;
}
// What is kept for it of its minimum. Its dead members' pages count as taken: they will be its
// floor again when they are free.
constexpr Pages floor(const Tenant& t) {
  return t.min.minus_clamped(t.charged).minus_clamped(t.limbo);
}
// In use for as long as it likes.
constexpr Pages in_use(const Tenant& t) { return is_firm(t) ? t.charged : t.used; }
// What it lacks for its wish, if it is its turn, as of the last plan. A wish is met as a whole,
// also where that is more than the share: a share of many tenants is less than most requests need,
// and half a request is of no use to anyone.
constexpr Pages claim(const Tenant& t) {
  if (!t.plan.entitled) return {};
  const Pages most = t.plan.aged ? t.plan.target : t.max;
  return whole(std::min(missing(t), most.minus_clamped(t.charged)), t.stripe);
}

Pages free_pages(const Pool& pool, std::span<const Tenant> tenants) noexcept;
// What is free beyond all floors.
Pages spare_pages(const Pool& pool, std::span<const Tenant> tenants) noexcept;

// What is taken and promised beyond what there is: after the pool was made smaller, or a minimum
// larger.
Pages overdrawn(const Pool& pool, std::span<const Tenant> tenants) noexcept;
constexpr Pages above_max(const Tenant& t) {
  return t.charged.minus_clamped(t.leaving).minus_clamped(t.max);
}

// ---- what the pool decides ----

// Whether the pool can keep `min` for `tenant`, whose record is in the span and counts with no
// minimum at all.
bool may_promise(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant,
                 Pages min) noexcept;

// Sets the pool's level and every tenant's plan. Called again without a change it changes nothing.
// What a tenant has above its maximum must come back, and what the pool is overdrawn by, though
// nobody waits for it.
// Returns what is claimed and neither free nor on its way: while that is not 0, nobody begins new
// work above its target.
// Needs at most kMostTenants.
Pages plan(Pool& pool, std::span<Tenant> tenants, const Rules& rules, Instant now) noexcept;

// What pages are asked for.
enum class Purpose : std::uint8_t {
  wish,     // the wish on record, so that new work can begin
  running,  // work that runs and must grow: its engine cannot wait, and would throw it away
  ahead,    // stripes to be kept warm
};

// How many of `wanted` pages `tenant` gets now, after a plan; a short grant is no error. Changes
// nothing.
Pages grantable(const Pool& pool, std::span<const Tenant> tenants, std::size_t tenant, Pages wanted,
                Purpose purpose = Purpose::wish) noexcept;
// The same, and books it. Before the pages are created: the account may overstate.
Pages grant(Pool& pool, std::span<Tenant> tenants, std::size_t tenant, Pages wanted,
            Purpose purpose = Purpose::wish) noexcept;
// Books what was granted, but not created after all, or what has been released.
void give_back(Tenant& tenant, Pages pages) noexcept;

// The gate: whether a tenant may put `pages` more of those that it is charged to use, for new work.
// Work that runs should not be asked: its engine would throw it away and do it again.
constexpr bool may_reuse(const Tenant& tenant, Pages pages) {
  return tenant.used + pages <= tenant.plan.reuse;
}

// What the tenant should release in this tick.
Pages due(const Tenant& tenant, const Rules& rules) noexcept;

// ---- the steps of a plan, each for its own tests ----

// The level at `spare` of `capacity`, coming from `before`: entered under 4, 2 and 1 per cent, left
// a point higher (rest: two), so that one page does not switch it to and fro.
Level level_at(Level before, Pages spare, Pages capacity) noexcept;

// Targets by weighted water-filling: target = clamp(L * weight, low, high), with one L for all, so
// that they sum up to at most `goal` and miss it by less than a page a tenant.
// Needs low <= high, and Σ low <= goal <= Σ high.
void fill(std::span<Tenant> tenants, Pages goal) noexcept;

}  // namespace kvcached::balance
