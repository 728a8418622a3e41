#include "policy/balance.hpp"

#include <tuple>
#include <utility>

#include "policy/balance_rules.hpp"

namespace kvcached::balance {
namespace {

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

// What it needs now: in use and wished for, in whole stripes as far as it is not there.
Pages need(const Tenant& t) {
  const Pages wished = t.stopped ? Pages() : held(t) + (serves_itself(t) ? Pages() : missing(t));
  return std::min(t.max, in_use(t) + wished);
}

// Others are entitled to what it has in use.
bool above_target(const Tenant& t) { return !is_firm(t) && t.used > t.plan.target; }

void set_bounds(Tenant& t, Pages all_certain, Pages capacity) {
  Decision& plan = t.plan;
  plan.low = certain(t);
  if (plan.aged) plan.low = std::max(plan.low, lifted(t, ceiling(t, all_certain, capacity)));
  plan.high = std::max(plan.low, need(t));
}

// Needs come before forecasts: only what is left when all needs are met is shared for what may be
// needed soon. Else tenants without a wish would keep pages idle that others wait for. `kept` of
// the capacity are shared with nobody, but for what is certain. Returns whether all needs fit.
bool set_targets(std::span<Tenant> tenants, Pages capacity, Pages kept, bool with_forecasts) {
  Pages lows;
  Pages needs;
  for (const Tenant& t : tenants) {
    lows += t.plan.low;
    needs += t.plan.high;
  }
  if (lows > capacity) {
    // A pool that shrank may not cover its minimums any more; all lose in proportion then.
    const double covered = static_cast<double>(capacity.value) / static_cast<double>(lows.value);
    for (Tenant& t : tenants) {
      t.plan.low =
          Pages(static_cast<std::uint64_t>(static_cast<double>(t.plan.low.value) * covered));
    }
  }
  const Pages shared = std::max(std::min(lows, capacity), capacity.minus_clamped(kept));
  Pages goal = shared;
  if (needs <= shared) {
    Pages highs;
    for (Tenant& t : tenants) {
      t.plan.low = t.plan.high;
      if (with_forecasts) t.plan.high = std::max(t.plan.low, std::min(t.max, t.demand));
      highs += t.plan.high;
    }
    goal = std::min(shared, highs);
  }
  fill(tenants, goal);
  return needs <= shared;
}

// While something claimed cannot be found, nobody above its target begins new work with what it
// frees: an engine refills its own freed blocks, and one that is busy would never look idle. Who is
// entitled to begin, and has all it needs, may go above its target with it.
void set_reuse(Tenant& t, bool contested) {
  const Pages kept = t.charged.minus_clamped(t.leaving).minus_clamped(t.plan.reclaim);
  const Pages begun = t.plan.entitled && !missing(t) ? t.used + t.want : Pages();
  t.plan.reuse = contested ? std::min(kept, std::max({t.min, t.plan.target, begun})) : kept;
  t.plan.reuse = std::min(t.plan.reuse, t.max);
}

constexpr std::size_t kMostAsked = 16;  // at a time, as each takes a look at all tenants

// What can be had from its engine by asking: blocks that it has no use for. It has, while it waits
// for more than those.
Pages to_be_asked_for(const Tenant& t) {
  if (is_firm(t) || (t.want && !serves_itself(t))) return {};
  const Pages most = std::min(std::min(t.loose, t.used), t.used.minus_clamped(t.min));
  return whole(most.minus_clamped(t.used.minus_clamped(t.plan.reuse)), t.stripe);
}

Pages above_targets(std::span<const Tenant> tenants) {
  Pages sum;
  for (const Tenant& t : tenants) {
    if (above_target(t)) sum += t.used - t.plan.target;
  }
  return sum;
}

// Nobody can take what an engine has without a use for it, but it comes back when the engine is
// asked. It may be within the engine's share: else that would keep it until the claims of others
// are aged. For the first claim that this helps, after what those have to give who are above their
// targets: one within its own share, or one that is met by it. Any other would cost engines their
// cached prefixes for nothing. Who has the most is asked first; for the aged claim everybody is,
// for all of it, as who was asked till then did not give.
void ask_for_loose(std::span<Tenant> tenants) {
  Pages there;
  for (const Tenant& t : tenants) there += to_be_asked_for(t);
  const Pages above = above_targets(tenants);
  const auto lacks = [&](const Tenant& t) {
    return t.plan.aged ? t.plan.lacks : t.plan.lacks.minus_clamped(above);
  };
  const Tenant* first = nullptr;
  for (const Tenant& t : tenants) {
    const bool due = t.plan.aged || need(t) <= t.plan.target;
    if (!lacks(t) || (lacks(t) > there && !due)) continue;
    if (first == nullptr || goes_before(t, *first)) first = &t;
  }
  if (first == nullptr) return;
  const auto ask = [](Tenant& t, Pages lacking) {
    const Pages pages = std::min(to_be_asked_for(t), whole_up(lacking, t.stripe));
    if (pages) t.plan.reuse = std::min(t.plan.reuse, t.used) - pages;
    return pages;
  };
  Pages lacking = lacks(*first);
  if (first->plan.aged) {
    for (Tenant& t : tenants) ask(t, lacking);
    return;
  }
  const auto has_less = [](const Tenant& a, const Tenant& b) {
    return std::pair(to_be_asked_for(a), b.id) < std::pair(to_be_asked_for(b), a.id);
  };
  for (std::size_t asked = 0; lacking && asked < kMostAsked; ++asked) {
    const Pages pages = ask(*std::max_element(tenants.begin(), tenants.end(), has_less), lacking);
    if (!pages) break;
    lacking = lacking.minus_clamped(pages);
  }
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
  bool fits = true;
  const auto settle = [&](Pages kept, bool with_forecasts) {
    for (Tenant& t : tenants) set_bounds(t, all_certain, capacity);
    fits = set_targets(tenants, capacity, kept, with_forecasts);
    for (Tenant& t : tenants) t.plan.entitled = t.plan.aged || in_use(t) < t.plan.target;
    return settle_claims(pool, tenants, rules, spare);
  };
  Pages unmet = settle(Pages(), true);
  // Some victims may not be taken from, and stripes do not add up: so there may be less than what
  // the needs left over. A claim does not wait for a forecast.
  if (unmet && fits) unmet = settle(Pages(), false);
  // Of the last pages no young claim is granted from. In a full pool with nobody above its target
  // the claims would wait until they are aged: so those pages are no part of the shares, where that
  // finds somebody who has more than its own, and somebody whose turn it is.
  const auto claims = [](const Tenant& t) { return static_cast<bool>(claim(t)); };
  if (unmet && !above_targets(tenants)) {
    unmet = settle(tight_mark(capacity), false);
    const bool helps =
        std::any_of(tenants.begin(), tenants.end(), claims) && (!unmet || above_targets(tenants));
    if (!helps) unmet = settle(Pages(), false);
  }
  pool.unmet = unmet;
  for (Tenant& t : tenants) set_reuse(t, static_cast<bool>(unmet));
  if (unmet) ask_for_loose(tenants);
  return unmet;
}

}  // namespace kvcached::balance
