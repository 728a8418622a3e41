#include "policy/ledger/snapshot.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "policy/ledger/counters.hpp"
#include "policy/ledger/reap.hpp"

namespace kvcached::ledger {

void read_numbers(const PoolFile& file, std::uint32_t own, const SlotSet& suspects, PoolSize size,
                  Numbers& numbers) noexcept {
  const layout::File& mapped = *file.mapped();
  numbers.dead = find_dead(file, own, suspects);
  read_books(mapped, size, numbers.dead, numbers.books);
  const std::uint32_t end = slots_end(mapped);
  for (std::uint32_t k = 0; k < end; ++k) {
    numbers.accounts[k] = account_of(mapped, k, size.most);
  }
}

namespace {

TenantState read_tenant(const layout::File& file, std::uint32_t place, const Books& books) {
  const layout::Tenant& tenant = file.tenants[place];
  TenantState state;
  state.name = name_of(tenant);
  state.limits = limits_of(tenant, books.pool);
  state.min_admitted = tenant.min_refused.load() != 1;
  state.charged = books.tenants[place].charged;
  state.trim = tenant.trim.load();
  state.counters = read_counters(file, tenant);
  return state;
}

}  // namespace

Snapshot complete(const layout::File& file, const Numbers& numbers) {
  const Books& books = numbers.books;
  Snapshot result;
  result.gpu = uuid_of(file.header);
  result.pool = books.pool;
  // No GPU has more than the largest pool; the bounds keep sums of damaged amounts from wrapping.
  result.charged = std::min(books.charged, Pages(layout::kMaxPoolPages));
  result.limbo = std::min(books.limbo, Pages(layout::kMaxPoolPages));
  result.free = books.free();
  result.shortfall = books.shortfall;
  result.unconfirmed = Pages(file.header.unconfirmed.load());
  const Pages total(file.header.gpu_pages.load());
  if (total && total <= Pages(layout::kMaxPoolPages)) result.gpu_total = total;
  const std::uint64_t free = file.header.gpu_free.load();
  if (result.gpu_total && free != 0) result.gpu_free = std::min(Pages(free - 1), total);
  std::array<std::size_t, layout::kTenants> shown{};  // plus 1
  for (std::uint32_t i = 0; i < books.tenants_end; ++i) {
    if (!books.tenants[i].living) continue;
    result.tenants.push_back(read_tenant(file, i, books));
    shown[i] = result.tenants.size();
  }
  for (std::uint32_t k = 0; k < layout::kSlots; ++k) {
    const SlotAccount& account = numbers.accounts[k];
    if (account.state == layout::SlotState::free) continue;
    MemberState member;
    member.slot = k;
    member.alive = account.state == layout::SlotState::live && !numbers.dead[k];
    member.charged = account.charged;
    read_texts(file.slots[k], member);
    member.figures.least = std::min(member.figures.least, books.most);
    const std::uint32_t tenant = account.tenant;
    if (tenant < layout::kTenants) member.tenant = name_of(file.tenants[tenant]);
    if (tenant < layout::kTenants && shown[tenant] != 0 && member.alive) {
      TenantState& state = result.tenants[shown[tenant] - 1];
      state.least = std::max(state.least, member.figures.least);
    }
    result.members.push_back(std::move(member));
  }
  if (std::none_of(result.members.begin(), result.members.end(),
                   [](const MemberState& member) { return member.alive; })) {
    result.gpu_free.reset();
  }
  return result;
}

Bytes Snapshot::plain() const {
  Bytes sum;
  for (const MemberState& member : members) {
    if (member.alive) sum += member.figures.plain;
    sum = std::min(sum, bytes_of(Pages(layout::kMaxPoolPages)));
  }
  return sum;
}

std::optional<Bytes> Snapshot::unexplained() const {
  if (!gpu_total || !gpu_free) return std::nullopt;
  return bytes_of(*gpu_total - *gpu_free).minus_clamped(bytes_of(charged + limbo) + plain());
}

std::uint64_t covered_tokens(const Snapshot& pool, const MemberState& member) noexcept {
  if (member.model.bytes_per_token == 0) return 0;
  if (member.figures.fitting) return *member.figures.fitting;
  const Pages there = pool.pool.minus_clamped(pool.shortfall);
  Pages max = pool.pool;
  Pages others;
  for (const TenantState& tenant : pool.tenants) {
    if (tenant.name == member.tenant)
      max = tenant.limits.max;
    else
      others += tenant.limits.min;
  }
  return bytes_of(std::min(max, there.minus_clamped(others))).value / member.model.bytes_per_token;
}

}  // namespace kvcached::ledger
