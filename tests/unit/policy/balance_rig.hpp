// Pools written down in a line or two.
#pragma once

#include <initializer_list>
#include <vector>

#include "policy/balance.hpp"

namespace kvcached::balance {

using std::chrono::seconds;

struct Rig {
  Pool pool;
  std::vector<Tenant> tenants;
  Rules rules;
  Instant now{std::chrono::hours(1)};

  explicit Rig(std::uint64_t pages) {
    pool.size = Pages(pages);
    rules.age = seconds(5);
    rules.turn = seconds(30);
  }

  // `used` of `charged` hold blocks. The demand is what is used.
  Tenant& add(std::uint64_t charged, std::uint64_t used, std::uint64_t min = 0) {
    Tenant t;
    t.id = tenants.size();
    t.charged = Pages(charged);
    t.used = Pages(used);
    t.demand = t.used;
    t.min = Pages(min);
    tenants.push_back(t);
    return tenants.back();
  }
  Tenant& operator[](std::size_t i) { return tenants[i]; }

  void wish(std::size_t i, std::uint64_t pages, Duration ago = seconds(1)) {
    tenants[i].want = Pages(pages);
    tenants[i].since = now - ago;
  }
  Pages plan() { return balance::plan(pool, tenants, rules, now); }
  Pages grantable(std::size_t i, std::uint64_t pages, Purpose purpose = Purpose::wish) {
    return balance::grantable(pool, tenants, i, Pages(pages), purpose);
  }
  Pages target(std::size_t i) const { return tenants[i].plan.target; }
  Pages reclaim(std::size_t i) const { return tenants[i].plan.reclaim; }
};

}  // namespace kvcached::balance
