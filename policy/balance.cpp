#include "policy/balance.hpp"

#include <array>
#include <tuple>
#include <utility>

#include "policy/balance_rules.hpp"

namespace kvcached::balance {
namespace {

// Places in the span. On the stack: a plan allocates nothing.
class Order {
 public:
  void add(std::size_t place) { places_[count_++] = static_cast<std::uint16_t>(place); }
  template <class Less>
  void sort(Less less) {
    std::sort(places_.begin(), places_.begin() + static_cast<std::ptrdiff_t>(count_), less);
  }
  const std::uint16_t* begin() const { return places_.data(); }
  const std::uint16_t* end() const { return places_.data() + count_; }

 private:
  std::array<std::uint16_t, kMostTenants> places_;
  std::size_t count_ = 0;
};
static_assert(kMostTenants <= 1U << 16);

// What a tenant has whatever the plan says: its minimum, and what it cannot give back. To plan with
// the latter would give others targets that nobody can fill.
Pages certain(const Tenant& t) {
  const Pages promised = std::min(t.min, t.max);
  return is_firm(t) ? std::max(promised, t.charged) : promised;
}

Pages certain(std::span<const Tenant> tenants) {
  Pages sum;
  for (const Tenant& t : tenants) sum += certain(t);
  return sum;
}

// As much as it may have when all others have what is certain.
Pages ceiling(const Tenant& t, Pages all_certain, Pages capacity) {
  return std::min(t.max, capacity.minus_clamped(all_certain - certain(t)));
}

// What an aged claim is lifted to. A wish that exceeds the ceiling is met as far as that. It stays
// lifted while all it wants is at hand and not yet used, or the gate would keep it from using it.
Pages lifted(const Tenant& t, Pages ceiling) {
  const Pages lacks = missing(t);
  if (!lacks) return t.used + t.want;
  return t.charged + whole(std::min(lacks, ceiling.minus_clamped(t.charged)), t.stripe);
}

// Whether being the aged claim could help.
bool may_be_aged(const Tenant& t, Pages ceiling, const Rules& rules, Instant now) {
  if (!t.want || t.stopped || now - t.plan.queued <= rules.age) return false;
  return missing(t) ? lifted(t, ceiling) > t.charged : lifted(t, ceiling) <= ceiling;
}

// At most one claim is aged at a time: two that together exceed the pool would each hold half of it
// and wait for the other. It stays that until its wish is met, its turn is over, or nothing more
// can be given to it; its turn was in vain in the last two cases.
void choose_aged(std::span<Tenant> tenants, const Rules& rules, Instant now, Pages all_certain,
                 Pages capacity) {
  Tenant* best = nullptr;
  const auto rank = [](const Tenant& t) { return std::tuple(!t.plan.aged, t.plan.queued, t.id); };
  for (Tenant& t : tenants) {
    Decision& plan = t.plan;
    if (!t.want || plan.since != t.since) {
      plan.aged = false;
      plan.since = plan.queued = t.since;
    }
    const Pages most = ceiling(t, all_certain, capacity);
    if (plan.aged && (now - plan.turn_began > rules.turn || !may_be_aged(t, most, rules, now))) {
      plan.aged = false;
      plan.queued = now;
    }
    if (!may_be_aged(t, most, rules, now)) continue;
    if (best == nullptr || rank(t) < rank(*best)) best = &t;
  }
  if (best == nullptr || best->plan.aged) return;
  best->plan.aged = true;
  best->plan.turn_began = now;
}

void set_bounds(Tenant& t, Pages all_certain, Pages capacity) {
  Decision& plan = t.plan;
  plan.low = certain(t);
  if (plan.aged) plan.low = std::max(plan.low, lifted(t, ceiling(t, all_certain, capacity)));
  const Pages used = is_firm(t) ? t.charged : t.used;
  const Pages wish = t.stopped ? Pages() : t.want;
  plan.high = std::max(plan.low, std::min(t.max, std::max(t.demand, used) + wish));
}

void set_targets(std::span<Tenant> tenants, Pages capacity) {
  Pages lows;
  for (const Tenant& t : tenants) lows += t.plan.low;
  // A pool that shrank may not cover its minimums any more; all lose in proportion then.
  if (lows > capacity) {
    const double covered = static_cast<double>(capacity.value) / static_cast<double>(lows.value);
    for (Tenant& t : tenants) {
      t.plan.low =
          Pages(static_cast<std::uint64_t>(static_cast<double>(t.plan.low.value) * covered));
    }
  }
  Pages highs;
  for (const Tenant& t : tenants) highs += t.plan.high;
  fill(tenants, std::min(capacity, highs));
}

Pages protected_part(const Tenant& t) { return std::max(t.min, t.plan.target); }

// What an idle page costs more than a used one is a tax: it makes hoarders the first victims.
std::uint64_t cost(const Tenant& t, const Rules& rules) {
  const Pages unused = idle(t);
  return (t.charged.minus_clamped(unused) + unused * rules.idle_tax).value;
}

// Whether a funds its pages worse than b: weight / cost, with a's raised by `percent`. Exact: costs
// stay below 2^43, weights below 2^14.
bool funds_worse(const Tenant& a, const Tenant& b, const Rules& rules, std::uint64_t percent = 0) {
  const auto weight = [](const Tenant& t) {
    return std::clamp<std::uint64_t>(t.weight, 1, kMostWeight);
  };
  const std::uint64_t left = weight(a) * cost(b, rules);
  const std::uint64_t right = weight(b) * cost(a, rules);
  return left / 100 * (100 + percent) + left % 100 * (100 + percent) / 100 < right;
}

// What a claim may take from others. Only the aged one resorts to the second and the third: what
// somebody waits for long comes before a forecast, and before younger wishes that are met in part,
// or they would wait for the aged one and the aged one for them.
enum class From {
  surplus,  // idle, above the target
  idle,     // idle, above the minimum
  held,     // kept for a wish, above the minimum
};

// Asks `victim` for up to `short_by`, in whole stripes of its own.
//
// A stripe that lies only in part above the target is above it: nobody could use the rest, and the
// rests of all tenants together may be what the claim lacks. A minimum is not cut into.
Pages take(Tenant& victim, Pages short_by, From from) {
  const Pages there = from == From::held ? at_hand(victim) : idle(victim);
  const Pages kept = victim.charged.minus_clamped(victim.leaving);
  const Pages target = from == From::surplus ? victim.plan.target : Pages();
  const Pages above =
      std::min(whole_up(kept.minus_clamped(target), victim.stripe), kept.minus_clamped(victim.min));
  const Pages most = std::min(there, above).minus_clamped(victim.plan.reclaim);
  const Pages taken = std::min(whole(most, victim.stripe), whole_up(short_by, victim.stripe));
  victim.plan.reclaim += taken;
  return taken;
}

// Finds what the claims need, oldest first: what is free, what is on its way, then idle pages of
// those who fund them worst. Returns what could not be found.
Pages set_reclaims(std::span<Tenant> tenants, const Rules& rules, Pages spare, Pages capacity) {
  Order claims;
  Order victims;
  Pages found = spare;
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    Tenant& t = tenants[i];
    t.plan.reclaim = Pages();
    found += std::min(t.leaving, t.charged);
    if (claim_beyond_floor(t)) claims.add(i);
    if (at_hand(t) && t.charged > t.min) victims.add(i);
  }
  claims.sort([&](auto a, auto b) { return goes_before(tenants[a], tenants[b]); });
  victims.sort([&](auto a, auto b) {
    const Tenant& one = tenants[a];
    const Tenant& other = tenants[b];
    if (funds_worse(one, other, rules)) return true;
    return !funds_worse(other, one, rules) && one.id < other.id;
  });

  Pages unmet;
  Pages kept = bare_mark(capacity);  // see grantable
  for (const auto place : claims) {
    const Tenant& claimer = tenants[place];
    Pages short_by = claim_beyond_floor(claimer);
    if (!claimer.plan.aged) short_by += std::exchange(kept, Pages());
    const Pages there = std::min(found, short_by);
    found -= there;
    short_by -= there;
    for (const From from : {From::surplus, From::idle, From::held}) {
      if (from != From::surplus && !claimer.plan.aged) continue;
      for (const auto victim : victims) {
        if (!short_by) break;
        if (victim == place) continue;
        // The aged claim has waited long enough to take from anyone.
        if (!claimer.plan.aged &&
            !funds_worse(tenants[victim], claimer, rules, rules.proximity_percent)) {
          continue;
        }
        const Pages taken = take(tenants[victim], short_by, from);
        found += taken.minus_clamped(short_by);
        short_by = short_by.minus_clamped(taken);
      }
    }
    unmet += short_by;
  }
  return unmet;
}

// While something claimed cannot be found, nobody above its target reuses what it frees: an engine
// refills its own freed blocks, and one that is busy would never look idle.
void set_reuse(Tenant& t, bool contested) {
  const Pages kept = t.charged.minus_clamped(t.leaving).minus_clamped(t.plan.reclaim);
  t.plan.reuse = contested ? std::min(kept, protected_part(t)) : kept;
}

}  // namespace

Level level_at(Level before, Pages spare, Pages capacity) noexcept {
  const auto below = [&](std::uint64_t percent) { return spare * 100 < capacity * percent; };
  const bool was_brisk = before >= Level::brisk;
  const bool was_tight = before >= Level::tight;
  if (below(before == Level::bare ? 2 : 1)) return Level::bare;
  if (below(was_tight ? 3 : 2)) return Level::tight;
  if (below(was_brisk ? 6 : 4)) return Level::brisk;
  return Level::rest;
}

Pages plan(Pool& pool, std::span<Tenant> tenants, const Rules& rules, Instant now) noexcept {
  const Pages capacity = pool.capacity();
  const Pages spare = spare_pages(pool, tenants);
  pool.level = level_at(pool.level, spare, capacity);
  const Pages all_certain = certain(tenants);
  choose_aged(tenants, rules, now, all_certain, capacity);
  for (Tenant& t : tenants) set_bounds(t, all_certain, capacity);
  set_targets(tenants, capacity);
  const Pages unmet = set_reclaims(tenants, rules, spare, capacity);
  for (Tenant& t : tenants) set_reuse(t, static_cast<bool>(unmet));
  return unmet;
}

}  // namespace kvcached::balance
