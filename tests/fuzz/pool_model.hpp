// A pool as it lives under policy/balance.hpp: tenants that join, die, grow, free, wish, stop and
// obey by halves, over a driver that has its own mind about how much memory there is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "policy/balance.hpp"
#include "policy/balance_rules.hpp"

namespace kvcached::balance {

inline void require(bool holds) {
  if (!holds) std::abort();
}

// What the model knows of a tenant besides its record.
struct Life {
  struct Request {
    Pages pages;
    std::uint64_t end = 0;  // tick; only the closing phase ends requests by time
  };
  std::vector<Request> running;
};

class PoolModel {
 public:
  static constexpr std::size_t kMost = 40;
  static constexpr std::uint64_t kPages = 600;

  PoolModel() {
    pool.size = Pages(kPages);
    // Shorter than in a pool, as the requests are that live in this one.
    rules.age = std::chrono::seconds(2);
    rules.turn = std::chrono::seconds(8);
  }

  Pool pool;
  std::vector<Tenant> tenants;
  std::vector<Life> lives;
  Rules rules;
  Instant now{std::chrono::hours(1)};
  // Pages that the driver really has handed out. The books may exceed it, never the reverse.
  Pages created;
  Pages created_by_dead;  // part of it, still to be freed
  Pages gpu{kPages};      // pages that there really are
  Pages unmet;            // of the last plan

  void join(Pages min, Pages max, std::uint32_t weight, Pages stripe, bool elastic) {
    if (tenants.size() == kMost) return;
    Tenant t;
    t.id = next_id_ * 7919 % 1009 + (next_id_ % 2 << 40) + (next_id_ << 10);  // not ascending
    ++next_id_;
    t.max = std::max(max, min);
    t.weight = weight;
    t.stripe = stripe;
    t.elastic = elastic;
    tenants.push_back(t);
    lives.emplace_back();
    if (may_promise(pool, tenants, tenants.size() - 1, min)) tenants.back().min = min;
  }

  // All of a tenant's processes are gone: its record, too. What they held is the driver's to free.
  // `booked_only` of that was not created yet.
  void die(std::size_t i, Pages booked_only = {}) {
    pool.limbo += tenants[i].charged;
    created_by_dead += tenants[i].charged - booked_only;
    // Its dead of before stay in the pool's limbo.
    tenants.erase(tenants.begin() + static_cast<std::ptrdiff_t>(i));
    lives.erase(lives.begin() + static_cast<std::ptrdiff_t>(i));
  }
  // One process of several is gone, with a part of its pages.
  void die_in_part(std::size_t i, Pages part) {
    Tenant& t = tenants[i];
    part = std::min(part, t.charged);
    t.charged -= part;
    t.limbo += part;
    pool.limbo += part;
    created_by_dead += part;
    t.leaving = Pages();
    lives[i].running.clear();
    t.used = Pages();
  }
  // The driver has freed `pages` of the dead. Those of living tenants' dead go first.
  void settle(Pages pages) {
    pages = std::min(pages, pool.limbo);
    pool.limbo -= pages;
    const Pages freed = std::min(pages, created_by_dead);
    created -= freed;
    created_by_dead -= freed;
    Pages of_tenants;
    for (const Tenant& t : tenants) of_tenants += t.limbo;
    for (Tenant& t : tenants) {
      // A tenant's part may not outlive the pool's.
      const Pages over = of_tenants.minus_clamped(pool.limbo);
      const Pages gone = std::min(t.limbo, std::max(over, std::min(pages, t.limbo)));
      t.limbo -= gone;
      of_tenants -= gone;
      pages = pages.minus_clamped(gone);
    }
  }

  // A user makes the pool smaller or larger again, not below what is promised.
  void resize(Pages size) {
    Pages promised;
    for (const Tenant& t : tenants) promised += t.min;
    pool.size = std::max(size, promised);
    pool.shortfall = std::min(pool.shortfall, pool.size);
  }
  Pages cut() const { return Pages(kPages).minus_clamped(pool.size); }

  void wish(std::size_t i, Pages pages) {
    tenants[i].want = pages;
    tenants[i].since = now;
  }

  // Asks for what the wish lacks, creates it, and begins the request when the gate allows. `crash`:
  // the process dies between the booking and the creation.
  void serve(std::size_t i, std::uint64_t end, bool crash = false) {
    Tenant& t = tenants[i];
    if (t.stopped) return;
    if (missing(t)) {
      const Pages got = take(i, missing(t));
      if (crash) return die(i, got);
      create(i, got);
    }
    if (!t.want || !t.elastic) {
      t.want = Pages();
      return;
    }
    if (at_hand(t) < t.want || !may_reuse(t, t.want)) return;
    lives[i].running.push_back({t.want, end});
    t.used += t.want;
    t.want = Pages();
  }

  // For work that runs, which grows without asking the gate, or ahead of any need.
  void grow(std::size_t i, Pages pages, Purpose purpose) {
    Tenant& t = tenants[i];
    if (t.stopped) return;
    const Pages got = take(i, pages, purpose);
    const Pages before = t.charged;
    create(i, got);
    if (purpose == Purpose::running && t.charged == before && got && t.elastic) {
      lives[i].running.push_back({got});
      t.used += got;
    }
  }

  // A grant, checked: within the limits, in whole stripes, and of nothing that was offered to
  // others.
  Pages take(std::size_t i, Pages wanted, Purpose purpose = Purpose::wish) {
    plan();
    Tenant& t = tenants[i];
    const Pages before = t.charged;
    const Pages floor_before = floor(t);
    Pages offered;
    for (const Tenant& other : tenants) {
      if (other.id != t.id) offered += other.plan.offer;
    }
    const Pages got = grant(pool, tenants, i, wanted, purpose);
    require(t.charged == before + got && got <= wanted);
    require(got == whole(got, t.stripe));
    if (!got) return got;
    require(t.charged <= t.max);                                             // I3
    if (got > floor_before) require(spare_pages(pool, tenants) >= offered);  // I5
    return got;
  }

  // The driver creates what was granted, or refuses.
  void create(std::size_t i, Pages got) {
    Tenant& t = tenants[i];
    if (created + got <= gpu) {
      created += got;
      return;
    }
    const Pages booked = t.charged;
    give_back(t, got);
    require(t.charged + got == booked);  // I10
    // The pool shrinks to what there is.
    const Pages over = free_pages(pool, tenants).minus_clamped(gpu - created);
    pool.shortfall = std::min(pool.size, pool.shortfall + over);
    require(free_pages(pool, tenants) < got);
  }

  // The pool grows again as far as the driver has pages to cover it.
  void recover() {
    const Pages more = (gpu - created).minus_clamped(free_pages(pool, tenants));
    pool.shortfall = pool.shortfall.minus_clamped(more);
  }

  void finish(std::size_t i, std::size_t request) {
    auto& running = lives[i].running;
    if (running.empty() || tenants[i].stopped) return;
    const auto at = running.begin() + static_cast<std::ptrdiff_t>(request % running.size());
    tenants[i].used -= at->pages;
    running.erase(at);
  }

  // Gives back what is due, or `part` percent of it; on its way until `release`.
  void obey(std::size_t i, unsigned part) {
    Tenant& t = tenants[i];
    if (t.stopped) return;
    t.leaving += whole(due(t, rules) * part / 100, t.stripe);
  }
  void release(std::size_t i) {
    Tenant& t = tenants[i];
    if (t.stopped) return;
    give_back(t, t.leaving);
    created -= t.leaving;
    t.leaving = Pages();
  }

  void plan() { unmet = balance::plan(pool, tenants, rules, now); }

 private:
  std::uint64_t next_id_ = 1;
};

}  // namespace kvcached::balance
