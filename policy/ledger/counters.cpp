#include "policy/ledger/counters.hpp"

#include <algorithm>
#include <bit>

#include "policy/ledger/books.hpp"

namespace kvcached::ledger {
namespace {

static_assert(kWaitBuckets == layout::kWaitBuckets);

void add(layout::U64& sum, std::uint64_t more) noexcept {
  if (more != 0) sum.fetch_add(more, std::memory_order_relaxed);
}

// A member's own counts fall when it destroys a cache; what comes then counts from there.
void add_growth(layout::U64& sum, std::uint64_t before, std::uint64_t now) noexcept {
  if (now > before) add(sum, now - before);
}

Pages pages_in(const layout::U64& cell) noexcept {
  return Pages(std::min(cell.load(), layout::kMaxPoolPages));
}

// 0 is nobody, so places count from 1.
std::uint64_t identity(const layout::File& file, std::uint32_t place) noexcept {
  return std::uint64_t{file.tenants[place].generation.load()} << 32 | (place + 1);
}

}  // namespace

void clear_counters(layout::Tenant& tenant) noexcept {
  for (layout::U64* sum :
       {&tenant.grants, &tenant.granted, &tenant.short_grants, &tenant.waits_in_vain,
        &tenant.reclaimed, &tenant.below_min, &tenant.evicted, &tenant.warm_hits,
        &tenant.warm_misses, &tenant.warm_in_vain}) {
    set(*sum, std::uint64_t{0});
  }
  for (layout::U32& bucket : tenant.waits) set(bucket, 0U);
  for (layout::Taker& taker : tenant.takers) {
    set(taker.who, std::uint64_t{0});
    set(taker.pages, std::uint64_t{0});
  }
}

void count_grant(layout::Tenant& tenant, Pages pages) noexcept {
  add(tenant.grants, 1);
  add(tenant.granted, pages.value);
}

void count_wait(layout::Tenant& tenant, Duration wait) noexcept {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(wait).count();
  const auto bits = static_cast<std::size_t>(
      std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(us, 0))));
  tenant.waits[std::min(bits, kWaitBuckets - 1)].fetch_add(1, std::memory_order_relaxed);
}

void count_wait_in_vain(layout::Tenant& tenant) noexcept { add(tenant.waits_in_vain, 1); }

void count_below_min(layout::Tenant& tenant, Duration time) noexcept {
  if (time > Duration::zero()) add(tenant.below_min, static_cast<std::uint64_t>(time.count()));
}

void count_figures(layout::Tenant& tenant, const Figures& before, const Figures& now) noexcept {
  add_growth(tenant.short_grants, before.short_grants, now.short_grants);
  add_growth(tenant.evicted, before.evicted, now.evicted);
  add_growth(tenant.warm_hits, before.stripes_kept.hits, now.stripes_kept.hits);
  add_growth(tenant.warm_misses, before.stripes_kept.misses, now.stripes_kept.misses);
  add_growth(tenant.warm_in_vain, before.stripes_kept.in_vain, now.stripes_kept.in_vain);
}

// Where there is no room, whoever took least makes room: the sum of all keeps its part.
void count_reclaimed(layout::File& file, std::uint32_t giver, std::uint32_t taker,
                     Pages pages) noexcept {
  layout::Tenant& tenant = file.tenants[giver];
  add(tenant.reclaimed, pages.value);
  const std::uint64_t who = identity(file, taker);
  layout::Taker* place = tenant.takers.data();
  for (layout::Taker& one : tenant.takers) {
    if (one.who.load() == who) return add(one.pages, pages.value);
    if (one.pages.load() < place->pages.load()) place = &one;
  }
  set(place->pages, std::uint64_t{0});
  set(place->who, who);
  set(place->pages, pages.value);
}

TenantCounters read_counters(const layout::File& file, const layout::Tenant& tenant) {
  TenantCounters counters;
  counters.grants = tenant.grants.load();
  counters.granted = pages_in(tenant.granted);
  counters.short_grants = tenant.short_grants.load();
  for (std::size_t i = 0; i < kWaitBuckets; ++i) counters.waits[i] = tenant.waits[i].load();
  counters.waits_in_vain = tenant.waits_in_vain.load();
  counters.reclaimed = pages_in(tenant.reclaimed);
  constexpr std::uint64_t kMostTime = 1ULL << 62;
  counters.below_min =
      Duration(static_cast<std::int64_t>(std::min(tenant.below_min.load(), kMostTime)));
  counters.evicted = tenant.evicted.load();
  counters.stripes_kept = {tenant.warm_hits.load(), tenant.warm_misses.load(),
                           tenant.warm_in_vain.load()};
  for (const layout::Taker& taker : tenant.takers) {
    const std::uint64_t who = taker.who.load();
    const Pages pages = pages_in(taker.pages);
    if (who == 0 || !pages) continue;
    const auto place = static_cast<std::uint32_t>(who & 0xffffffffU) - 1;
    counters.takers.push_back(
        {name_then(file, place, static_cast<std::uint32_t>(who >> 32)), pages});
  }
  std::stable_sort(counters.takers.begin(), counters.takers.end(),
                   [](const auto& a, const auto& b) { return a.pages > b.pages; });
  return counters;
}

std::string name_then(const layout::File& file, std::uint32_t place, std::uint32_t generation) {
  if (place >= layout::kTenants) return {};
  const layout::Tenant& tenant = file.tenants[place];
  return tenant.generation.load() == generation ? name_of(tenant) : std::string();
}

}  // namespace kvcached::ledger
