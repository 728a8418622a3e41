// A pool under policy/balance.hpp, driven by the input: after every step the invariants hold.
//
// The input is a series of steps of three bytes: what, who, how much. Two bits of the last `what`
// decide how the closing phase runs.
//
// The invariants, and in which form they are checked:
// I1  Every page is booked once: charged + limbo + untold + free = size - shortfall. What the
// driver
//     refused is no one's, so it is taken off the size. A pool that was made smaller may have more
//     booked than it has; then nothing is free.
// I2  free + shortfall + what the pool was made smaller by covers all floors. Without these it
//     could not hold: the driver may have less than was promised.
// I3  No grant exceeds the maximum; what is idle above a maximum lowered later is taken, but for
//     less than a stripe above the minimum. A reclaim leaves the minimum and used pages alone, and
//     the target but for less than a stripe, of which nobody could make use; in an overdrawn pool
//     the target counts for nothing. What is held for a wish is taken only for one that goes
//     before, else two that are met in part would wait for each other; and for the aged claim, what
//     a target keeps idle, which is a mere forecast.
// I4  Targets sum up to at most the pool, lie within their bounds, and do not depend on the order
//     of the records; nor does any other decision.
// I5  What is offered is there, and a grant beyond the own floor leaves others' offers alone.
// Claims
//     are offered in order, each as a whole; the first without an offer does not fit into what
//     those before it leave. So an entitled waiter is passed only by who fits where it does not,
//     and the aged one by nobody: it is offered all there is. (That nobody younger ever passes
//     would leave pages idle for claims that they do not cover, which cost most of the work done in
//     simulations.)
// I6  In the closing phase, in which everybody obeys and requests end, every wish that can be met
//     is met in time, though all others go on wishing. In the steps before, the input decides
//     whether anybody frees anything, so there is no bound.
// I7  A reclaim is through after ceil(reclaim / batch) ticks of its owner, the batch in whole
//     stripes and one stripe at least.
// I8  A second plan changes nothing.
// I9  However a process dies, between the booking and the creation of its pages too, I1 and I2 hold
//     and the books cover what the driver handed out.
// I10 What the driver refused leaves the charge as it was (in PoolModel::create).
// And, of the gate: while something claimed cannot be found, nobody above its target begins new
// work but the one whose turn it is. And what the aged claim cannot find is nowhere.
#include <cstdint>
#include <cstdio>
#include <utility>

#include "tests/fuzz/pool_model.hpp"

namespace {

using namespace kvcached;
using namespace kvcached::balance;
using std::chrono::milliseconds;

struct Counter {
  ~Counter() { std::printf("policy_fuzz: %llu steps\n", steps); }
  unsigned long long steps = 0;
};
Counter counter;

bool same(const Tenant& a, const Tenant& b) {
  return a.plan.target == b.plan.target && a.plan.reclaim == b.plan.reclaim &&
         a.plan.reuse == b.plan.reuse && a.plan.offer == b.plan.offer &&
         a.plan.aged == b.plan.aged && a.plan.queued == b.plan.queued && a.plan.low == b.plan.low &&
         a.plan.high == b.plan.high;
}

void check_books(const PoolModel& m) {
  Pages booked = m.pool.limbo + m.pool.untold;
  Pages floors;
  for (const Tenant& t : m.tenants) {
    booked += t.charged;
    floors += floor(t);
    require(t.used + t.leaving <= t.charged);
  }
  const Pages free = free_pages(m.pool, m.tenants);
  require(booked + free == std::max(m.pool.capacity(), booked));  // I1
  require(free + m.pool.shortfall + m.cut() >= floors);           // I2
  require(booked >= m.created + m.pool.untold);                   // I9
}

void check_reclaim(const PoolModel& m, const Tenant& t, const Tenant* aged) {
  const Decision& plan = t.plan;
  const Pages kept = t.charged.minus_clamped(t.leaving).minus_clamped(plan.reclaim);
  if (plan.reclaim) {
    require(plan.reclaim == whole(plan.reclaim, t.stripe));
    require(!is_firm(t) && plan.reclaim <= at_hand(t));
    require(kept >= t.min);  // I3
    const bool for_earlier = std::any_of(m.tenants.begin(), m.tenants.end(), [&](const Tenant& o) {
      return claim(o) && o.id != t.id && goes_before(o, t);
    });
    const bool overdrawn_pool = static_cast<bool>(overdrawn(m.pool, m.tenants));
    require(plan.reclaim <= idle(t) || for_earlier || above_max(t) || overdrawn_pool);
    require(kept + t.stripe > plan.target || (t.want && for_earlier) || aged != nullptr ||
            overdrawn_pool);
  }
  if (above_max(t)) {
    const Pages most =
        std::min(at_hand(t), t.charged.minus_clamped(t.leaving).minus_clamped(t.min));
    require(kept < t.max + t.stripe || plan.reclaim == whole(most, t.stripe));
    require(plan.reuse <= t.max);
  }
  const bool begins = plan.entitled && !missing(t);
  if (m.unmet && !begins && t.used + Pages(1) > std::max(t.min, plan.target)) {
    require(!may_reuse(t, Pages(1)));
  }
  // Nobody is asked for what it has a use for below its share, nor below its minimum.
  const Pages share = std::min({kept, std::max(t.min, plan.target), t.max});
  require(plan.reuse + std::min(t.loose, t.used) >= share);
  require(plan.reuse >= std::min({kept, t.min, t.used}));
  // I7
  Tenant obeying = t;
  const Pages batch = whole(std::max(m.rules.batch, t.stripe), t.stripe);
  const std::uint64_t ticks = whole_up(plan.reclaim, batch) / batch;
  for (std::uint64_t i = 0; i < ticks; ++i) {
    const Pages now = due(obeying, m.rules);
    obeying.plan.reclaim -= now;
    obeying.leaving += now;
  }
  require(!obeying.plan.reclaim);
}

void check_plan(PoolModel& m) {
  m.plan();
  Pages targets;
  const Tenant* aged = nullptr;
  for (const Tenant& t : m.tenants) {
    targets += t.plan.target;
    require(t.plan.low <= t.plan.target && t.plan.target <= t.plan.high);  // I4
    require(t.plan.high <= std::max({t.max, t.min, t.charged}));
    if (!t.plan.aged) continue;
    require(aged == nullptr);
    aged = &t;
  }
  require(targets <= m.pool.capacity());  // I4
  for (const Tenant& t : m.tenants) check_reclaim(m, t, aged);

  // I8, and I4: by turning the order around.
  PoolModel again = m;
  again.plan();
  PoolModel turned = m;
  std::reverse(turned.tenants.begin(), turned.tenants.end());
  turned.plan();
  require(again.unmet == m.unmet && again.pool.level == m.pool.level && turned.unmet == m.unmet);
  for (std::size_t i = 0; i < m.tenants.size(); ++i) {
    require(same(m.tenants[i], again.tenants[i]));
    require(same(m.tenants[i], turned.tenants[m.tenants.size() - 1 - i]));
  }
}

// I5, and that nothing is left untouched while the aged claim is not met.
void check_claims(const PoolModel& m) {
  std::vector<const Tenant*> claims;
  Pages offered;
  for (const Tenant& t : m.tenants) {
    if (claim_beyond_floor(t)) claims.push_back(&t);
    offered += t.plan.offer;
  }
  Pages left = spare_pages(m.pool, m.tenants);
  require(offered + m.pool.open <= left);
  std::sort(claims.begin(), claims.end(),
            [](const Tenant* a, const Tenant* b) { return goes_before(*a, *b); });
  Pages kept = tight_mark(m.pool.capacity());
  for (const Tenant* t : claims) {
    const Pages wanted = claim_beyond_floor(*t);
    if (t->plan.aged) {
      require(t->plan.offer == std::min(wanted, left));
    } else {
      left = left.minus_clamped(std::exchange(kept, Pages()));
      if (!t->plan.offer) require(wanted > left);
      if (!t->plan.offer) break;
      require(t->plan.offer == wanted);
    }
    const auto place = static_cast<std::size_t>(t - m.tenants.data());
    const Pages promised = t->plan.offer ? floor(*t) : Pages();  // there may be less
    require(grantable(m.pool, m.tenants, place, claim(*t)) + t->stripe >
            std::min(claim(*t), promised + t->plan.offer));
    left -= t->plan.offer;
  }
  if (claims.empty() || !claims.front()->plan.aged) return;
  Pages found = claims.front()->plan.offer;
  for (const Tenant& t : m.tenants) found += t.leaving + t.plan.reclaim;
  if (claim_beyond_floor(*claims.front()) <= found) return;
  for (const Tenant& t : m.tenants) {
    const Pages above = t.charged.minus_clamped(t.leaving).minus_clamped(t.min);
    require(t.plan.aged ||
            !whole(std::min(at_hand(t), above).minus_clamped(t.plan.reclaim), t.stripe));
  }
}

void check(PoolModel& m) {
  ++counter.steps;
  check_books(m);
  check_plan(m);
  check_claims(m);
}

void step(PoolModel& m, std::uint8_t what, std::uint8_t who, std::uint8_t much) {
  const Pages pages(much);
  if (what % 20 == 0) {
    // A minimum now and then; stripes of 1 to 16 pages.
    m.join(Pages(who % 4 == 0 ? much : 0), Pages(who % 3 == 0 ? 40 + much : PoolModel::kPages),
           1 + who % 5, Pages(1ULL << (much % 5)), who % 16 != 15);
    return;
  }
  if (m.tenants.empty()) return;
  const std::size_t i = who % m.tenants.size();
  Tenant& t = m.tenants[i];
  if (what >= 236 && what < 240) return m.resize(Pages(PoolModel::kPages).minus_clamped(pages * 2));
  if (what >= 240) {
    return m.grow(i, pages / 8, much % 2 == 0 ? Purpose::running : Purpose::ahead);
  }
  switch (what % 20) {
    case 1:
      if (much % 4 == 0) m.die(i);
      break;
    case 2:
      m.die_in_part(i, pages);
      break;
    case 3:
      m.settle(pages);
      break;
    case 4:
    case 5:
      m.wish(i, pages);
      break;
    case 6:
    case 7:
    case 8:
      m.serve(i, 0);
      break;
    case 9:
      m.serve(i, 0, true);
      break;
    case 10:
    case 11:
      m.finish(i, much);
      break;
    case 12:
      t.stopped = !t.stopped;
      break;
    case 13:
      t.stripe = Pages(1 + much % 24);
      break;
    case 14:  // limits
      if (much % 3 == 0) t.max = std::max(t.min, pages * 2);
      if (much % 3 == 1) t.weight = 1 + much;
      if (much % 3 == 2 && pages <= t.max && may_promise(m.pool, m.tenants, i, pages)) {
        t.min = pages;
      }
      break;
    case 15: {  // others take memory of the GPU, or leave it
      const Pages there(PoolModel::kPages - much);
      m.gpu = std::max(m.created, there);
      break;
    }
    case 16:
      m.recover();
      break;
    case 17:
      m.now += milliseconds(100) * much;
      break;
    case 18:
      m.obey(i, much % 101);
      if (much >= 128) m.release(i);
      break;
    default:
      if (much % 2 == 0) {
        m.release(i);
      } else {
        t.demand = pages;
        t.loose = t.used.minus_clamped(pages);
      }
  }
}

// ---- I6 ----

constexpr std::uint64_t kLife = 20;  // ticks that a request lives at most
constexpr Duration kTick = milliseconds(100);

// As much as the tenant can have in use whatever the others do: all others keep their minimum, what
// cannot be had back from them, and less than a stripe above their due.
bool can_be_met(const PoolModel& m, std::size_t i) {
  const Tenant& own = m.tenants[i];
  Pages others = m.pool.limbo + m.pool.untold;
  for (std::size_t j = 0; j < m.tenants.size(); ++j) {
    const Tenant& t = m.tenants[j];
    if (j == i) continue;
    others += std::max(t.min, t.elastic ? Pages() : t.charged) + t.stripe;
  }
  const Pages needed = whole_up(own.used + own.want, own.stripe) + own.stripe;
  return others + needed <= m.pool.capacity() && own.used + own.want + own.stripe <= own.max;
}

void close(PoolModel& m, bool greedy) {
  for (Tenant& t : m.tenants) t.stopped = false;
  m.gpu = Pages(PoolModel::kPages);
  m.settle(m.pool.limbo);
  m.recover();
  m.plan();
  // Who cannot tell what is idle gives nothing back and asks for nothing more.
  std::vector<bool> waits(m.tenants.size());
  std::uint64_t waiting = 0;
  for (std::size_t i = 0; i < m.tenants.size(); ++i) {
    for (Life::Request& r : m.lives[i].running) r.end = kLife;
    if (!m.tenants[i].elastic) m.tenants[i].want = Pages();
    waits[i] = m.tenants[i].want && can_be_met(m, i);
    waiting += waits[i];
  }
  // Each that waits may have to let all others pass, who need the life of a request and the time to
  // give everything back, in batches and one more tick each. One wish that nobody can meet may have
  // one turn in vain between any two.
  const auto age = static_cast<std::uint64_t>(m.rules.age / kTick);
  const auto turn = static_cast<std::uint64_t>(m.rules.turn / kTick);
  const std::uint64_t once = kLife + 2 * PoolModel::kPages / m.rules.batch.value + 4;
  const std::uint64_t bound = age + m.tenants.size() * (once + turn);
  for (std::uint64_t tick = 0; waiting > 0; ++tick) {
    require(tick <= bound);
    ++counter.steps;
    for (std::size_t k = 0; k < m.tenants.size(); ++k) {
      const std::size_t i = (k + tick) % m.tenants.size();
      Tenant& t = m.tenants[i];
      std::erase_if(m.lives[i].running, [&](const Life::Request& r) {
        if (r.end > tick) return false;
        t.used -= r.pages;
        return true;
      });
      m.plan();
      m.release(i);
      m.obey(i, 100);
      const bool wished = static_cast<bool>(t.want);
      m.serve(i, tick + 1 + (tick * 7 + i) % kLife);
      if (wished && !t.want && waits[i]) {
        waits[i] = false;
        --waiting;
      }
      if (greedy && !t.want && t.elastic) m.wish(i, Pages(1 + (tick * 31 + i * 17) % 120));
    }
    check_books(m);
    m.now += kTick;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  PoolModel model;
  std::uint8_t last = 0;
  for (; size >= 3; data += 3, size -= 3) {
    last = data[0];
    step(model, data[0], data[1], data[2]);
    check(model);
  }
  if ((last & 1) != 0) close(model, (last & 2) != 0);
  return 0;
}
