#include "bench/replay/sharing.hpp"

#include <utility>

namespace kvcached::replay {

const char* to_string(Way way) {
  switch (way) {
    case Way::fixed:
      return "static";
    case Way::first_come:
      return "first come";
    case Way::balanced:
      return "balanced";
  }
  return "?";
}

Shared::Shared(Way way, Pages pool, std::vector<balance::Tenant> tenants,
               const balance::Rules& rules)
    : way_(way), rules_(rules), tenants_(std::move(tenants)) {
  pool_.size = pool;
  for (std::size_t i = 0; i < tenants_.size(); ++i) {
    tenants_[i].id = i;
    if (way_ == Way::fixed) tenants_[i].charged = most(i);
  }
}

Pages Shared::most(std::size_t i) const {
  const balance::Tenant& own = tenants_[i];
  if (way_ == Way::fixed) {
    return balance::whole(std::min(own.max, pool_.size / tenants_.size()), own.stripe);
  }
  Pages others;
  for (const balance::Tenant& t : tenants_) others += t.min;
  return std::min(own.max, pool_.size.minus_clamped(others - own.min));
}

// Wishes age without anybody doing anything, so a plan is also made anew now and then.
void Shared::plan_if_stale(Instant now) {
  if (way_ == Way::first_come && stale_) {
    pool_.level = balance::level_at(pool_.level, balance::spare_pages(pool_, tenants_), pool_.size);
    stale_ = false;
  }
  if (way_ != Way::balanced) return;
  if (!stale_ && now - planned_ < std::chrono::milliseconds(100)) return;
  balance::plan(pool_, tenants_, rules_, now);
  ++plans_;
  stale_ = false;
  planned_ = now;
}

Pages Shared::grant(std::size_t i, Pages pages, Instant now, balance::Purpose purpose) {
  balance::Tenant& own = tenants_[i];
  if (way_ == Way::balanced) {
    plan_if_stale(now);
    const Pages given = balance::grant(pool_, tenants_, i, pages, purpose);
    if (given) stale_ = true;
    return given;
  }
  if (way_ == Way::fixed) return {};
  const Pages most = std::min(own.max.minus_clamped(own.charged),
                              balance::spare_pages(pool_, tenants_) + balance::floor(own));
  // All or nothing, as the ledger grants.
  const Pages given = pages <= most ? balance::whole(pages, own.stripe) : Pages();
  own.charged += given;
  stale_ = true;
  return given;
}

void Shared::give_back(std::size_t i, Pages pages) {
  balance::give_back(tenants_[i], pages);
  stale_ = true;
}

bool Shared::may_reuse(std::size_t i, Pages pages, Instant now) {
  if (way_ != Way::balanced) {
    return tenants_[i].used + pages + tenants_[i].leaving <= tenants_[i].charged;
  }
  plan_if_stale(now);
  return balance::may_reuse(tenants_[i], pages);
}

Pages Shared::due(std::size_t i, Instant now) {
  plan_if_stale(now);
  if (way_ != Way::balanced) return {};
  return balance::due(tenants_[i], rules_);
}

Pages Shared::charged() const {
  Pages sum;
  for (const balance::Tenant& t : tenants_) sum += t.charged;
  return sum;
}

}  // namespace kvcached::replay
