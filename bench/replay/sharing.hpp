// Ways to share a pool, behind one face: so that a scenario runs the same under each.
#pragma once

#include <cstdint>
#include <vector>

#include "policy/balance.hpp"

namespace kvcached::replay {

// What an engine says that it will need.
enum class Foresight : std::uint8_t {
  none,   // what is used
  queue,  // what is used, and what all waiting requests need to begin
};

enum class Way {
  fixed,       // everybody has its slice
  first_come,  // whoever asks first, but minimums are reserved; nothing is asked back
  balanced,    // policy/balance.hpp
};

const char* to_string(Way way);

class Shared {
 public:
  // The records' stripes, limits and weights are those of `tenants`; ids are their places.
  Shared(Way way, Pages pool, std::vector<balance::Tenant> tenants, const balance::Rules& rules);

  // What a tenant may change of its own: used, leaving, want, since, demand. Say `changed` after.
  balance::Tenant& tenant(std::size_t i) { return tenants_[i]; }
  const std::vector<balance::Tenant>& tenants() const { return tenants_; }
  void changed() { stale_ = true; }

  // Up to `pages` more for a tenant, booked.
  Pages grant(std::size_t i, Pages pages, Instant now,
              balance::Purpose purpose = balance::Purpose::wish);
  void give_back(std::size_t i, Pages pages);
  bool may_reuse(std::size_t i, Pages pages, Instant now);
  // What it is asked to release in this tick.
  Pages due(std::size_t i, Instant now);

  // The most that a tenant can ever have.
  Pages most(std::size_t i) const;
  bool is_elastic() const { return way_ != Way::fixed; }
  // Whether what a tenant keeps idle is had back when another needs it.
  bool asks_back() const { return way_ == Way::balanced; }
  Pages charged() const;
  balance::Level level() const { return pool_.level; }
  Pages size() const { return pool_.size; }
  std::uint64_t plans() const { return plans_; }

 private:
  void plan_if_stale(Instant now);

  Way way_;
  balance::Rules rules_;
  balance::Pool pool_;
  std::vector<balance::Tenant> tenants_;
  bool stale_ = true;
  Instant planned_{};
  std::uint64_t plans_ = 0;
};

}  // namespace kvcached::replay
