#include "policy/ledger/snapshot.hpp"

#include <algorithm>

#include "policy/ledger/reap.hpp"

namespace kvcached::ledger {

void read_numbers(const PoolFile& file, std::uint32_t own, Pages pool, Numbers& numbers) noexcept {
  const layout::File& mapped = *file.mapped();
  numbers.dead = find_dead(file, own);
  read_books(mapped, pool, numbers.dead, numbers.books);
  const std::uint32_t end = slots_end(mapped);
  for (std::uint32_t k = 0; k < end; ++k) {
    numbers.states[k] = state_of(mapped.slots[k]);
    numbers.charges[k] = charge_of(mapped.slots[k], pool);
    numbers.tenants[k] = mapped.slots[k].tenant.load();
  }
}

Snapshot complete(const layout::File& file, const Numbers& numbers) {
  const Books& books = numbers.books;
  Snapshot result;
  result.gpu = uuid_of(file.header);
  result.pool = books.pool;
  // A pool made smaller by a new first member, or damage, could exceed it; the parts shown don't.
  result.charged = std::min(books.charged, books.pool);
  result.limbo = std::min(books.limbo, books.pool - result.charged);
  result.free = books.pool - result.charged - result.limbo;
  result.unconfirmed = Pages(file.header.unconfirmed.load());
  for (std::uint32_t i = 0; i < books.tenants_end; ++i) {
    if (!books.tenants[i].living) continue;
    const layout::Tenant& tenant = file.tenants[i];
    result.tenants.push_back({name_of(tenant), limits_of(tenant, books.pool),
                              tenant.min_refused.load() != 1, books.tenants[i].charged});
  }
  for (std::uint32_t k = 0; k < layout::kSlots; ++k) {
    if (numbers.states[k] == layout::SlotState::free) continue;
    MemberState member;
    member.slot = k;
    member.alive = numbers.states[k] == layout::SlotState::live && !numbers.dead[k];
    member.charged = numbers.charges[k];
    if (numbers.tenants[k] < layout::kTenants) {
      member.tenant = name_of(file.tenants[numbers.tenants[k]]);
    }
    read_texts(file.slots[k], member);
    result.members.push_back(std::move(member));
  }
  return result;
}

}  // namespace kvcached::ledger
