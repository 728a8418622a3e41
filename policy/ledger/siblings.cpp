#include "policy/ledger/siblings.hpp"

#include <algorithm>

#include "policy/ledger/planning.hpp"

namespace kvcached::ledger {
namespace {

Pages in_use(const layout::Slot& slot, Pages most) noexcept {
  return std::min(Pages(slot.used.load()), most) + std::min(Pages(slot.fragmented.load()), most);
}

Pages idle_of(const layout::File& file, std::uint32_t slot, Pages most) noexcept {
  return account_of(file, slot, most).charged.minus_clamped(in_use(file.slots[slot], most));
}

// Calls f(its slot's number, its slot) for each other process of the tenant that can be heard.
template <class F>
void for_siblings(const layout::File& file, Place own, Instant now, F f) {
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    const layout::Slot& slot = file.slots[k];
    if (k == own.slot || tenant_of_living(file, k) != own.tenant || Planning::silent(slot, now))
      continue;
    f(k, slot);
  }
}

// What the claims lack that `own` gives to, and since when the last of those has waited.
struct Lack {
  Pages pages;
  std::int64_t since = 0;
};

Lack lack_of_siblings(const layout::File& file, const Books& books, Place own,
                      Instant now) noexcept {
  const layout::Slot& self = file.slots[own.slot];
  const bool waits = self.claim.load() != 0;
  const Pages most = reach(books, own.tenant);
  Lack lack;
  for_siblings(file, own, now, [&](std::uint32_t k, const layout::Slot& slot) {
    const Pages claim(slot.claim.load());
    const std::int64_t since = slot.claim_since.load();
    if (!claim || (waits && since >= self.claim_since.load())) return;
    const Pages can_be = most.minus_clamped(in_use(slot, books.most));
    lack.pages += std::min(claim, can_be).minus_clamped(idle_of(file, k, books.most));
    lack.since = std::max(lack.since, since);
  });
  const TenantBook& book = books.tenants[own.tenant];
  const Pages free = std::min(books.spare_for(own.tenant), book.max.minus_clamped(book.charged));
  lack.pages = std::min(lack.pages, most).minus_clamped(free);
  return lack;
}

// `own`'s part of `pages` that it gives together with those of its siblings that `gives` takes.
// What is idle goes first, from each alike by what it has. The rest their engines must let go.
template <class F>
Pages part_to_give(const layout::File& file, Pages pages, Place own, Pages most, Instant now,
                   F gives) noexcept {
  const Pages idle = idle_of(file, own.slot, most);
  Pages all_idle = idle;
  Pages givers(1);
  for_siblings(file, own, now, [&](std::uint32_t k, const layout::Slot& slot) {
    if (slot.stripe.load() == 0 || !gives(slot)) return;
    all_idle += idle_of(file, k, most);
    givers += Pages(1);
  });
  const Pages from_idle = std::min(pages, all_idle);
  return part_of(from_idle, idle, all_idle) + part_of(pages - from_idle, Pages(1), givers);
}

}  // namespace

bool sibling_waits(const layout::File& file, Place own, Instant now) noexcept {
  bool waits = false;
  for_siblings(file, own, now, [&](std::uint32_t, const layout::Slot& slot) {
    waits = waits || slot.claim.load() != 0;
  });
  return waits;
}

Pages due_to_siblings(const layout::File& file, const Books& books, Place own,
                      Instant now) noexcept {
  if (file.slots[own.slot].stripe.load() == 0) return {};  // it has nothing that it could give
  const Lack lack = lack_of_siblings(file, books, own, now);
  if (!lack.pages) return {};
  return part_to_give(file, lack.pages, own, books.most, now, [&](const layout::Slot& slot) {
    // Who waits for as long as one of those gives to fewer of them.
    return slot.claim.load() == 0 || slot.claim_since.load() > lack.since;
  });
}

Pages part_of_reclaim(const layout::File& file, Pages reclaim, Place own, Pages most,
                      Instant now) noexcept {
  return part_to_give(file, reclaim, own, most, now, [](const layout::Slot&) { return true; });
}

Pages part_of_reuse(const layout::File& file, Pages reuse, Place own, Pages most,
                    Instant now) noexcept {
  Pages kept;   // by those that give nothing
  Pages given;  // what the others use, with the wish that the plan knows of
  const layout::Slot* first = nullptr;
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    const layout::Slot& slot = file.slots[k];
    if (k != own.slot && tenant_of_living(file, k) != own.tenant) continue;
    const bool silent = k != own.slot && Planning::silent(slot, now);
    const bool gives = k == own.slot || (slot.stripe.load() != 0 && !silent);
    (gives ? given : kept) += in_use(slot, most);
    if (silent || slot.claim.load() == 0) continue;
    if (first == nullptr || slot.claim_since.load() < first->claim_since.load()) first = &slot;
  }
  const layout::Slot& self = file.slots[own.slot];
  const Pages want = first != nullptr ? std::min(Pages(first->claim.load()), most) : Pages();
  const Pages used = in_use(self, most) + (first == &self ? want : Pages());
  return part_of(reuse.minus_clamped(kept), used, given + want);
}

}  // namespace kvcached::ledger
