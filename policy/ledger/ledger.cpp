#include "policy/ledger/ledger.hpp"

#include <algorithm>

#include "policy/ledger/counters.hpp"
#include "policy/ledger/file_ledger.hpp"
#include "policy/ledger/grant.hpp"
#include "policy/ledger/history.hpp"
#include "policy/ledger/reap.hpp"
#include "policy/ledger/room.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

constexpr Duration kAskAgain = std::chrono::milliseconds(100);

}  // namespace

// Waits once for a stopped holder, then only tries until it got the lock.
bool FileLedger::lock(int patience) const noexcept {
  if (abandoned_.load()) return false;
  const bool got = file_.lock_within(LockKind::exclusive, try_only_ ? 0 : patience);
  if (!got) test_point(try_only_ ? "lock.tried" : "lock.waited");
  try_only_ = !got;
  return got;
}

bool FileLedger::here() const noexcept {
  return !abandoned_.load() && slot_ != kNoSlot && file_.intact();
}

// For the owner's own words, which need no lock on the file.
layout::Slot* FileLedger::own_slot() const noexcept {
  return here() ? &file_.mapped()->slots[slot_] : nullptr;
}

// Writes the own account as it must be: books what an uncharge could not, drops the claim that
// drop_claim could not, and mends what a stray write of some other process may have done to it.
// Returns what is booked as given back.
Pages FileLedger::restate() noexcept {
  layout::File& file = *file_.mapped();
  const Pages before = account_of(file, slot_, most_).charged;
  if (file.header.slots_used.load() <= slot_) set(file.header.slots_used, slot_ + 1);
  set_account(file, slot_, {layout::SlotState::live, tenant_, charged()});
  if (claim_ends_.exchange(false)) {
    end_wait();
    end_refusal();
    claim({});
  }
  return before.minus_clamped(charged());
}

void FileLedger::heard() noexcept {
  set(file_.mapped()->slots[slot_].heartbeat,
      std::int64_t{clock_.now().time_since_epoch().count()});
}

// With the books of now; under the lock. Only a plan counts on whom was heard of.
void FileLedger::plan() noexcept {
  layout::File& file = *file_.mapped();
  heard();
  read_books(file, size(), {}, books_);
  planning_.plan(file, books_, clock_.now());
}

// What a request of this process waits for; none: nothing any more.
void FileLedger::claim(Pages wish) noexcept {
  layout::Slot& slot = file_.mapped()->slots[slot_];
  if (!wish) {
    set(slot.claim_since, std::int64_t{0});
  } else if (slot.claim.load() == 0) {
    set(slot.claim_since, std::int64_t{clock_.now().time_since_epoch().count()});
  }
  set(slot.claim, wish.value);
}

// A wait lasts until the last grant that it brought: the wish lives on a little.
void FileLedger::end_wait() noexcept {
  if (refused_at_ && granted_at_) count_wait(tenant(), *granted_at_ - *refused_at_);
  if (refused_at_ && !granted_at_) count_wait_in_vain(tenant());
  refused_at_.reset();
  granted_at_.reset();
}

// With books of now, though perhaps read without the lock.
void FileLedger::refused(Pages pages) noexcept {
  if (!pages || pages > books_.tenants[tenant_].floor()) return end_refusal();
  if (!below_min_at_) below_min_at_ = clock_.now();
}

// What each is asked for is a part of what is lacking at that time. It may be another, or not come,
// so they are to look again.
void FileLedger::ask_siblings() noexcept {
  const Instant now = clock_.now();
  if (refused_at_ && now - asked_at_ < kAskAgain) return;
  if (!refused_at_) refused_at_ = now;
  asked_at_ = now;
  ring_siblings();
}

void FileLedger::end_refusal() noexcept {
  if (below_min_at_) count_below_min(tenant(), clock_.now() - *below_min_at_);
  below_min_at_.reset();
}

bool FileLedger::charge(Pages pages, Pages wish) noexcept {
  if (abandoned_.load()) return false;
  const Hold hold(mutex_);
  if (slot_ == kNoSlot) return false;
  draw_near(*file_.mapped(), slot_, books_.slots_end);
  if (!lock(kPatience)) {
    if (!here()) return false;
    read_books(*file_.mapped(), size(), {}, books_);
    refused(pages);
    return false;
  }
  restate();
  test_point("charge.before");
  layout::File& file = *file_.mapped();
  layout::Slot& slot = file.slots[slot_];
  read_books(file, size(), {}, books_);
  bool contested = Planning::contested(file);
  bool granted = !contested && may_grant(books_, tenant_, pages);
  if (!granted && (contested || wish)) {
    if (wish) claim(std::max(wish, pages));
    test_point("charge.claimed");
    plan();
    granted = planning_.grantable(tenant_, pages) >= pages;
    contested = true;
  }
  if (granted) {
    own_ += pages.value;
    restate();
    test_point("charge.after");
    if (wish && slot.claim.load() != 0) claim(wish);
  }
  if (contested) {
    if (granted) plan();
    planning_.commit(file);
  }
  unlock();
  if (granted) {
    if (refused_at_) granted_at_ = clock_.now();
    count_grant(tenant(), pages);
    end_refusal();
  } else {
    refused(pages);
    if (wish) ask_siblings();
  }
  return granted;
}

void FileLedger::drop_claim() noexcept {
  if (abandoned_.load()) return;
  claim_ends_ = true;
  const std::unique_lock hold(mutex_, std::try_to_lock);
  if (!hold.owns_lock() || !here() || !file_.try_lock(LockKind::exclusive)) return;
  restate();
  plan();
  planning_.commit(*file_.mapped());
  unlock();
}

void FileLedger::uncharge(Pages pages) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  if (slot_ == kNoSlot) return;
  own_ = Pages(own_.load()).minus_clamped(pages).value;
  test_point("uncharge.before");
  __builtin_prefetch(&file_.mapped()->accounts[slot_], 1);
  if (!lock(kPatience)) return;
  const Pages given = restate();
  test_point("uncharge.after");
  layout::File& file = *file_.mapped();
  if (Planning::contested(file)) {
    const Pages asked = std::min(given, Pages(tenant().reclaim.load()));
    plan();
    const std::uint32_t waiter = planning_.first_waiter(tenant_);
    if (asked && waiter != layout::kTenants) count_reclaimed(file, tenant_, waiter, asked);
    planning_.commit(file);
  }
  unlock();
}

Pages FileLedger::reap(Bytes gpu_free) noexcept {
  if (abandoned_.load()) return {};
  const Hold hold(mutex_);
  if (!file_.intact()) return limbo_;
  const SlotSet suspects = find_dead(file_, slot_);
  test_point("reap.suspected");
  if (!lock(kPatience)) return limbo_;
  if (slot_ != kNoSlot) {
    restate();
    heard();
  }
  layout::File& file = *file_.mapped();
  const Instant now = clock_.now();
  const Pages free = std::min(pages_down(gpu_free), Pages(layout::kMaxPoolPages));
  bury_dead(file_, slot_, suspects, now);
  limbo_ = settle_limbo(file, size(), free, now, books_);
  set(file.header.gpu_free, free.value + 1);
  // Claims age, claimants die, what was limbo may be free now, and a user's change may have been
  // cut short by its death.
  read_books(file, size(), {}, books_);
  note_shortfall(file, free, books_);
  if (Planning::contested(file) || books_.exceeded()) {
    planning_.plan(file, books_, now);
    planning_.commit(file);
  }
  record_moment(file, books_, now);
  unlock();
  return limbo_;
}

std::unique_ptr<Ledger> Ledger::open(const OpenRequest& request, const Clock& clock,
                                     Refusal& refusal, std::string& complaint) {
  PoolFile file = open_pool(request, refusal, complaint);
  if (refusal != Refusal::ok) return nullptr;
  return std::make_unique<FileLedger>(std::move(file), request.gpu_total, clock);
}

}  // namespace kvcached::ledger
