#include <array>
#include <utility>

#include "policy/balance.hpp"
#include "policy/balance_rules.hpp"

namespace kvcached::balance {
namespace {

// Places in the span. On the stack: a plan allocates nothing.
class Order {
 public:
  void add(std::size_t place) {
    if (count_ < places_.size()) places_[count_++] = static_cast<std::uint16_t>(place);
  }
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

// What a claim may take from others.
enum class From {
  surplus,  // idle, above the target
  held,     // kept for a wish that comes later, above the minimum: else two half-met wishes would
            // wait for each other, and many would fill the pool with pages that nobody can use
  idle,     // idle, above the minimum. For the aged claim: what somebody waits for long comes
            // before a forecast
};

// What `victim` can still give, in whole stripes of its own.
//
// A stripe that lies only in part above the target is above it: nobody could use the rest, and the
// rests of all tenants together may be what the claim lacks. A minimum is not cut into.
Pages can_give(const Tenant& victim, From from) {
  const Pages there = from == From::held ? at_hand(victim) : idle(victim);
  const Pages kept = victim.charged.minus_clamped(victim.leaving);
  const Pages target = from == From::surplus ? victim.plan.target : Pages();
  const Pages above =
      std::min(whole_up(kept.minus_clamped(target), victim.stripe), kept.minus_clamped(victim.min));
  const Pages asked = victim.plan.reclaim + victim.plan.tried;
  return whole(std::min(there, above).minus_clamped(asked), victim.stripe);
}

class Settlement {
 public:
  Settlement(std::span<Tenant> tenants, const Rules& rules, Pages spare)
      : tenants_(tenants), rules_(rules), left_(spare) {
    for (std::size_t i = 0; i < tenants.size(); ++i) {
      Tenant& t = tenants[i];
      t.plan.offer = t.plan.lacks = t.plan.reclaim = t.plan.tried = Pages();
      coming_ += std::min(t.leaving, t.charged);
      if (t.want && !t.stopped) queue_.add(i);
      if (at_hand(t) && t.charged > t.min) {
        victims_.add(i);
        at_most_ += at_hand(t);
      }
    }
    queue_.sort([&](auto a, auto b) { return goes_before(tenants[a], tenants[b]); });
    victims_.sort([&](auto a, auto b) {
      const Tenant& one = tenants[a];
      const Tenant& other = tenants[b];
      if (funds_worse(one, other, rules)) return true;
      return !funds_worse(other, one, rules) && one.id < other.id;
    });
  }

  // The oldest first. One that cannot be met as a whole is passed over for those that can: the
  // pages would lie there for nothing. Once it is aged, it is not passed any more, and takes what
  // it can get until it has all.
  Pages settle(Pages kept) {
    for (const auto place : queue_) {
      Tenant& claimer = tenants_[place];
      const Pages wanted = claim_beyond_floor(claimer);
      if (!claimer.plan.aged) left_ = left_.minus_clamped(std::exchange(kept, Pages()));
      // What engines are asked for on behalf of a claim is not taken back for such a wish.
      if (!wanted || (unmet_ && serves_itself(claimer))) continue;
      if (wanted <= left_ || claimer.plan.aged) {
        claimer.plan.offer = std::min(wanted, left_);
        left_ -= claimer.plan.offer;
      }
      const Pages lacks = wanted - claimer.plan.offer;
      if (lacks) meet(claimer, lacks);
    }
    left_ = left_.minus_clamped(kept);
    return unmet_;
  }
  Pages left() const { return left_; }

  // Before the claims: what tenants have above their maximums, and what the pool is overdrawn by.
  void enforce(Pages overdrawn) {
    for (Tenant& t : tenants_) {
      const Pages kept = t.charged.minus_clamped(t.leaving);
      const Pages most = std::min(at_hand(t), kept.minus_clamped(t.min));
      t.plan.reclaim = std::min(whole_up(above_max(t), t.stripe), whole(most, t.stripe));
      coming_ += t.plan.reclaim;
    }
    const Pages arriving = std::min(coming_, overdrawn);
    coming_ -= arriving;
    Pages lacking = overdrawn - arriving;
    // What is held for a wish, too: the wish may be one that cannot be met any more.
    for (const From from : {From::surplus, From::idle, From::held}) {
      for (const auto place : victims_) {
        if (!lacking) return;
        Tenant& victim = tenants_[place];
        const Pages pages = std::min(can_give(victim, from), whole_up(lacking, victim.stripe));
        victim.plan.reclaim += pages;
        lacking = lacking.minus_clamped(pages);
      }
    }
    unmet_ += lacking;
  }

 private:
  // From what is on its way, and what others can give.
  void meet(Tenant& claimer, Pages lacks) {
    const bool whole_only = !claimer.plan.aged;
    const Pages set_aside = whole_only ? left_ : Pages();  // too little to offer
    Pages short_by = lacks - set_aside;
    const Pages arriving = std::min(coming_, short_by);
    short_by -= arriving;
    Pages taken;
    if (short_by <= at_most_ || !whole_only) {
      taken = try_from(claimer, From::surplus, taken, short_by);
      if (claimer.plan.aged) taken = try_from(claimer, From::idle, taken, short_by);
      taken = try_from(claimer, From::held, taken, short_by);
    }
    const bool found = taken >= short_by;
    for (const auto place : victims_) {
      Decision& victim = tenants_[place].plan;
      if (found || !whole_only) victim.reclaim += victim.tried;
      victim.tried = Pages();
    }
    if (!found && !serves_itself(claimer))
      claimer.plan.lacks = short_by - (whole_only ? Pages() : taken);
    unmet_ += claimer.plan.lacks;
    if (!found && whole_only) return;
    left_ -= set_aside;
    at_most_ = at_most_.minus_clamped(taken);
    coming_ = coming_ - arriving + taken.minus_clamped(short_by);
  }

  Pages try_from(const Tenant& claimer, From from, Pages taken, Pages short_by) {
    for (const auto place : victims_) {
      if (taken >= short_by) break;
      Tenant& victim = tenants_[place];
      if (&victim == &claimer || !may_take(claimer, victim, from)) continue;
      const Pages most = whole_up(short_by - taken, victim.stripe);
      const Pages pages = std::min(can_give(victim, from), most);
      victim.plan.tried += pages;
      taken += pages;
    }
    return taken;
  }

  bool may_take(const Tenant& claimer, const Tenant& victim, From from) const {
    if (from == From::held) return victim.want && goes_before(claimer, victim);
    // The aged claim has waited long enough to take from anyone.
    return claimer.plan.aged || funds_worse(victim, claimer, rules_, rules_.proximity_percent);
  }

  std::span<Tenant> tenants_;
  const Rules& rules_;
  Order queue_;
  Order victims_;
  Pages left_;     // spare, not offered
  Pages coming_;   // on its way to the pool, not expected by anyone
  Pages at_most_;  // that victims could give
  Pages unmet_;
};

}  // namespace

Pages settle_claims(Pool& pool, std::span<Tenant> tenants, const Rules& rules,
                    Pages spare) noexcept {
  Settlement settlement(tenants, rules, spare);
  settlement.enforce(overdrawn(pool, tenants));
  const Pages unmet = settlement.settle(tight_mark(pool.capacity()));
  pool.open = settlement.left();
  return unmet;
}

}  // namespace kvcached::balance
