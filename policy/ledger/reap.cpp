#include "policy/ledger/reap.hpp"

#include <algorithm>

#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

std::int64_t nanoseconds(Instant instant) noexcept { return instant.time_since_epoch().count(); }

void empty(layout::File& file, std::uint32_t slot) noexcept {
  set_account(file, slot, {});
  test_point("reap.emptied");
}

bool overdue(layout::Slot& slot, Instant now) noexcept {
  const std::int64_t since = slot.limbo_since.load();
  // From the future: another time namespace's clock, or damage. Time starts now.
  if (since > nanoseconds(now)) {
    set(slot.limbo_since, nanoseconds(now));
    return false;
  }
  return Duration(nanoseconds(now) - std::max<std::int64_t>(since, 0)) >= kLimboPatience;
}

// The base of proof 2; taken down, or set anew while nobody is dead.
Pages note_base(layout::Header& header, Pages sum, bool nobody_dead) noexcept {
  const std::uint64_t stored = header.unexplained_base.load();
  const Pages base = stored == 0 || nobody_dead ? sum : std::min(sum, Pages(stored - 1));
  set(header.unexplained_base, base.value + 1);
  return base;
}

}  // namespace

SlotSet find_dead(const PoolFile& file, std::uint32_t own, const SlotSet& among) noexcept {
  SlotSet dead;
  const std::uint32_t end = slots_end(*file.mapped());
  for (std::uint32_t k = 0; k < end; ++k) {
    if (k == own || !among[k]) continue;
    if (account_of(*file.mapped(), k, {}).state != layout::SlotState::live) continue;
    dead[k] = !file.locked_elsewhere(layout::kLivenessByte + k);
  }
  return dead;
}

void bury_dead(const PoolFile& file, std::uint32_t own, const SlotSet& suspects,
               Instant now) noexcept {
  if (suspects.none()) return;
  const SlotSet dead = find_dead(file, own, suspects);
  for (std::uint32_t k = 0; k < dead.size(); ++k) {
    if (!dead[k]) continue;
    layout::Slot& slot = file.mapped()->slots[k];
    { const SlotChange repaired(slot); }
    // Moved as it is: other members may know of a larger pool than this one does.
    SlotAccount account = account_of(*file.mapped(), k, Pages(layout::kMaxPoolPages));
    if (!account.charged) {
      empty(*file.mapped(), k);
      continue;
    }
    set(slot.limbo_since, nanoseconds(now));
    test_point("reap.dated");
    account.state = layout::SlotState::limbo;
    set_account(*file.mapped(), k, account);
    test_point("reap.buried");
  }
}

Pages settle_limbo(layout::File& file, PoolSize size, std::optional<Pages> gpu_free, Instant now,
                   Books& scratch) noexcept {
  read_books(file, size, {}, scratch);
  // No GPU has more than the largest pool; the bound keeps the sums from wrapping.
  const Pages physical = std::min(gpu_free.value_or(Pages{}), Pages(layout::kMaxPoolPages));
  Pages sum = physical + scratch.charged + scratch.limbo;
  Pages base = Pages::max();
  if (gpu_free) base = note_base(file.header, sum, !scratch.limbo);
  // Whether it is there or not: the proof is about all that the pool could ever grant.
  Pages free = scratch.pool.minus_clamped(scratch.charged).minus_clamped(scratch.limbo);
  Pages left;
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    layout::Slot& slot = file.slots[k];
    const SlotAccount account = account_of(file, k, size.most);
    if (account.state != layout::SlotState::limbo) continue;
    const Pages pages = account.charged;
    const bool all_there = gpu_free && physical >= free + pages;
    const bool grown = gpu_free && sum.minus_clamped(base) >= pages - pages / 8;
    const bool late = overdue(slot, now);
    if (!all_there && !grown && !late) {
      left += pages;
      continue;
    }
    if (!all_there && !grown) {
      file.header.unconfirmed.fetch_add(pages.value, std::memory_order_relaxed);
    }
    empty(file, k);
    free += pages;
    sum -= pages;
  }
  return std::min(left, size.most);
}

}  // namespace kvcached::ledger
