#include "policy/ledger/planning.hpp"

#include <algorithm>
#include <utility>

#include "policy/balance_rules.hpp"
#include "policy/ledger/bell.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

using std::chrono::seconds;

// An agent says something once a second at least: who was silent for longer is stopped, or so busy
// that it is no use to wait for it.
constexpr Duration kSilence = seconds(3);
constexpr balance::Rules kRules;

Instant instant(const layout::I64& cell, Instant now) noexcept {
  return std::clamp(Instant(Duration(cell.load())), Instant(), now);
}

std::int64_t nanoseconds(Instant instant) noexcept { return instant.time_since_epoch().count(); }

Pages pages(const layout::U64& cell, Pages most) noexcept {
  return std::min(Pages(cell.load()), most);
}

}  // namespace

bool Planning::contested(const layout::File& file) noexcept {
  return file.header.contested.load() != 0;
}

bool Planning::silent(const layout::Slot& slot, Instant now) noexcept {
  return now - instant(slot.heartbeat, now) > kSilence;
}

balance::Tenant* Planning::find(std::uint32_t tenant) noexcept {
  return place_[tenant] == 0 ? nullptr : &records_[place_[tenant] - 1U];
}

void Planning::plan(const layout::File& file, const Books& books, Instant now) noexcept {
  place_ = {};
  count_ = 0;
  const Pages size = std::min(books.pool, balance::kMostPages);
  const Pages most = std::min(books.most, balance::kMostPages);
  for (std::uint32_t i = 0; i < books.tenants_end; ++i) {
    const TenantBook& book = books.tenants[i];
    if (!book.living) continue;
    const layout::Tenant& entry = file.tenants[i];
    balance::Tenant& record = records_[count_++];
    place_[i] = static_cast<std::uint16_t>(count_);
    record = balance::Tenant{};
    record.id = i;
    record.min = book.min;
    record.max = book.max;
    record.weight = std::min(limits_of(entry, size).weight, balance::kMostWeight);
    record.charged = book.charged;
    record.limbo = book.limbo;
    record.plan.aged = entry.aged.load() != 0;
    record.plan.since = instant(entry.since, now);
    record.plan.queued = instant(entry.queued, now);
    record.plan.turn_began = instant(entry.turn_began, now);
  }
  pool_ = balance::Pool{};
  pool_.size = size;
  pool_.limbo = books.limbo;
  pool_.shortfall = std::min(books.shortfall, size);
  pool_.level = static_cast<balance::Level>(std::min<std::uint32_t>(
      file.header.level.load(), static_cast<std::uint32_t>(balance::Level::bare)));
  pool_.untold = books.charged;
  for (const balance::Tenant& record : tenants()) {
    pool_.untold = pool_.untold.minus_clamped(record.charged);
  }
  add_members(file, most, now);
  balance::plan(pool_, tenants(), kRules, now);
}

void Planning::add_members(const layout::File& file, Pages most, Instant now) noexcept {
  for (balance::Tenant& record : tenants()) {
    record.stripe = Pages();
    record.elastic = false;
  }
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    const layout::Slot& slot = file.slots[k];
    const SlotAccount account = account_of(file, k, most);
    if (account.state != layout::SlotState::live || account.tenant >= layout::kTenants) continue;
    balance::Tenant* const record = find(account.tenant);
    if (record == nullptr) continue;
    const Pages charged = account.charged;
    const Pages stripe = pages(slot.stripe, most);
    const bool silent = Planning::silent(slot, now);
    // What a member cannot or does not give back is in use.
    const bool gives = stripe && !silent;
    record->elastic = record->elastic || gives;
    const Pages told = pages(slot.used, charged) + pages(slot.fragmented, charged);
    const Pages used = gives ? std::min(told, charged) : charged;
    const Pages demand = pages(slot.demand, most);
    record->used += used;
    // Who needs less than it uses can do without the rest.
    if (gives) record->loose += used.minus_clamped(demand);
    record->demand += std::max(demand, used);
    if (stripe && (!record->stripe || stripe < record->stripe)) record->stripe = stripe;
    const Pages claim = silent ? Pages() : pages(slot.claim, most);
    if (!claim) continue;
    // Of one request only, so that it can be met: the one that waits longest.
    const Instant since = instant(slot.claim_since, now);
    if (record->want && record->since <= since) continue;
    record->want = claim;
    record->since = since;
  }
  for (balance::Tenant& record : tenants()) {
    record.stripe = std::max(record.stripe, Pages(1));
    record.demand = std::min(record.demand, most);
  }
}

Pages Planning::grantable(std::uint32_t tenant, Pages wanted) noexcept {
  balance::Tenant* const own = find(tenant);
  if (own == nullptr) return {};
  const Pages stripe = std::exchange(own->stripe, std::min(own->stripe, wanted));
  const Pages granted =
      balance::grantable(pool_, tenants(), static_cast<std::size_t>(own - records_.data()), wanted);
  own->stripe = stripe;
  return granted;
}

std::uint32_t Planning::first_waiter(std::uint32_t but) noexcept {
  const balance::Tenant* first = nullptr;
  for (const balance::Tenant& record : tenants()) {
    if (record.id == but || !record.want || !balance::missing(record)) continue;
    if (first == nullptr || balance::goes_before(record, *first)) first = &record;
  }
  return first == nullptr ? layout::kTenants : static_cast<std::uint32_t>(first->id);
}

void Planning::commit(layout::File& file) noexcept {
  const bool was_contested = Planning::contested(file);
  bool contested = static_cast<bool>(balance::overdrawn(pool_, tenants()));
  std::array<bool, layout::kTenants> called{};
  const std::span<const balance::Tenant> all = tenants();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const balance::Tenant& record = all[i];
    layout::Tenant& entry = file.tenants[record.id];
    const balance::Decision& plan = record.plan;
    const bool more = plan.reclaim > Pages(entry.reclaim.load());
    // What it has in use by now is known to itself only.
    const Pages might_use = was_contested ? Pages(entry.reuse.load()) : Pages::max();
    const bool less = plan.reuse < std::min(might_use, record.charged);
    set(entry.target, plan.target.value);
    test_point("plan.half");
    set(entry.reclaim, plan.reclaim.value);
    set(entry.reuse, plan.reuse.value);
    set(entry.since, nanoseconds(plan.since));
    set(entry.queued, nanoseconds(plan.queued));
    set(entry.turn_began, nanoseconds(plan.turn_began));
    set(entry.aged, std::uint64_t{plan.aged});
    const bool waits = record.want && balance::missing(record);
    contested = contested || waits || balance::above_max(record);
    called[record.id] =
        more || less || (waits && balance::grantable(pool_, all, i, balance::missing(record)));
  }
  set(file.header.level, static_cast<std::uint32_t>(pool_.level));
  set(file.header.contested, std::uint32_t{contested});
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    const std::uint32_t tenant = tenant_of_living(file, k);
    if (tenant < called.size() && called[tenant]) ring(file.slots[k].bell);
  }
}

}  // namespace kvcached::ledger
