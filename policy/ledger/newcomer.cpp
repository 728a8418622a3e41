#include "policy/ledger/newcomer.hpp"

#include <algorithm>

#include "policy/ledger/counters.hpp"

namespace kvcached::ledger {

std::uint32_t take_slot(const PoolFile& file) noexcept {
  const layout::File& mapped = *file.mapped();
  for (std::uint32_t k = 0; k < layout::kSlots; ++k) {
    const bool free = account_of(mapped, k, {}).state == layout::SlotState::free;
    if (k < slots_end(mapped) && !free) continue;
    // Held nevertheless: by a member that left and whose forked child is still to let go.
    if (file.try_lock(layout::kLivenessByte + k, LockKind::exclusive)) return k;
  }
  return layout::kSlots;
}

std::uint32_t place_for(const layout::File& file, std::string_view tenant) noexcept {
  SlotSet used;
  for (std::uint32_t k = 0; k < slots_end(file); ++k) {
    const SlotAccount account = account_of(file, k, {});
    if (account.state == layout::SlotState::free || account.tenant >= used.size()) continue;
    if (is_named(file.tenants[account.tenant], tenant)) return account.tenant;
    used[account.tenant] = true;
  }
  std::uint32_t unused = 0;
  while (unused + 1 < used.size() && used[unused]) ++unused;
  return unused;
}

void admit(layout::File& file, std::uint32_t tenant, const JoinRequest& request, PoolSize size,
           Books& scratch) noexcept {
  layout::Tenant& entry = file.tenants[tenant];
  read_books(file, size, {}, scratch);
  if (tenant < scratch.tenants_end && scratch.tenants[tenant].living) return;
  // Who may have all of the pool may have all of it when it is made larger, too.
  const Pages max =
      request.limits.max < size.now ? request.limits.max : Pages(layout::kMaxPoolPages);
  const Pages min = std::min(request.limits.min, max);
  const bool promised = request.limits.min <= max && may_promise(scratch, tenant, min);
  clear_counters(entry);
  set(entry.generation, entry.generation.load() + 1);
  set_name(entry, request.tenant);
  set(entry.min_pages, promised ? min.value : 0);
  set(entry.max_pages, max.value);
  set(entry.weight, std::max(request.limits.weight, 1U));
  set(entry.min_refused, promised ? 0U : 1U);
}

}  // namespace kvcached::ledger
