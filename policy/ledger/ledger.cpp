#include "policy/ledger/ledger.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "policy/ledger/bell.hpp"
#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/grant.hpp"
#include "policy/ledger/newcomer.hpp"
#include "policy/ledger/planning.hpp"
#include "policy/ledger/reap.hpp"
#include "policy/ledger/snapshot.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kPatience = 50;        // ms
constexpr int kJoinPatience = 1000;  // ms; an engine that starts can wait longer
constexpr std::uint32_t kNoSlot = layout::kSlots;

class FileLedger final : public Ledger {
 public:
  FileLedger(PoolFile file, const Clock& clock)
      : file_(std::move(file)),
        clock_(clock),
        pool_(Pages(file_.mapped()->header.pool_pages.load())),
        process_(::getpid()) {}
  ~FileLedger() override;
  FileLedger(const FileLedger&) = delete;
  FileLedger& operator=(const FileLedger&) = delete;

  bool join(const JoinRequest& request, std::string& complaint) noexcept override;
  bool charge(Pages pages, Pages wish) noexcept override;
  void drop_claim() noexcept override;
  Duty duty() const noexcept override;
  std::uint32_t rung() const noexcept override;
  void wait(std::uint32_t seen, Duration most) const noexcept override;
  void wake() noexcept override;
  void uncharge(Pages pages) noexcept override;
  Pages charged() const noexcept override { return Pages(own_.load()); }
  void publish(const Figures& figures) noexcept override;
  void describe_model(const ModelShape& model) noexcept override;
  void report_adapter(std::string_view adapter, std::string_view state) noexcept override;
  Pages reap(Bytes gpu_free) noexcept override;
  Pages pool() const noexcept override { return pool_; }
  TenantLimits limits() const noexcept override;
  Snapshot snapshot() const override;
  void abandon() noexcept override;

 private:
  using Hold = std::lock_guard<std::mutex>;

  // The next three need mutex_, which keeps this process's threads apart; the lock on the file
  // does not.
  bool lock(int patience) const noexcept;
  void unlock() const noexcept { file_.unlock(layout::kMutexByte); }
  layout::Slot* own_slot() const noexcept;

  void restate() noexcept;
  void plan() noexcept;
  void plan_if_contested() noexcept;
  void claim(Pages wish) noexcept;
  void write(layout::Slot& slot, const Figures& figures) noexcept;

  PoolFile file_;
  const Clock& clock_;
  const Pages pool_;  // it cannot change while someone is present
  const std::int64_t process_;

  mutable std::mutex mutex_;
  mutable bool try_only_ = false;  // a wait was in vain: the holder is stopped
  mutable Books books_;            // scratch
  Planning planning_;              // scratch
  std::uint32_t slot_ = kNoSlot;
  std::uint32_t tenant_ = 0;
  TenantLimits limits_;
  Pages limbo_;  // as last seen

  // The truth about the own charge. The slot follows: at once when the charge grows, when the
  // lock can be had when it shrinks.
  std::atomic<std::uint64_t> own_{0};
  std::atomic<bool> abandoned_{false};
};

// Waits once for a stopped holder, then only tries until it got the lock.
bool FileLedger::lock(int patience) const noexcept {
  if (abandoned_.load()) return false;
  const bool got = try_only_ ? file_.try_lock(layout::kMutexByte, LockKind::exclusive)
                             : file_.lock_within(layout::kMutexByte, LockKind::exclusive, patience);
  if (!got) test_point(try_only_ ? "lock.tried" : "lock.waited");
  try_only_ = !got;
  if (got && !file_.intact()) {
    unlock();
    return false;
  }
  return got;
}

// For the owner's own words, which need no lock on the file.
layout::Slot* FileLedger::own_slot() const noexcept {
  if (abandoned_.load() || slot_ == kNoSlot || !file_.intact()) return nullptr;
  return &file_.mapped()->slots[slot_];
}

// Writes the own slot as it must be: books what an uncharge could not, and mends what a stray
// write of some other process may have done to it. The state comes last: it makes the rest count.
void FileLedger::restate() noexcept {
  layout::Slot& slot = file_.mapped()->slots[slot_];
  set(slot.charged, own_.load());
  set(slot.tenant, tenant_);
  set(slot.heartbeat, std::int64_t{clock_.now().time_since_epoch().count()});
  layout::U32& used = file_.mapped()->header.slots_used;
  if (used.load() <= slot_) set(used, slot_ + 1);
  set(slot.state, static_cast<std::uint32_t>(layout::SlotState::live));
}

// With the books of now; under the lock.
void FileLedger::plan() noexcept {
  layout::File& file = *file_.mapped();
  read_books(file, pool_, {}, books_);
  planning_.plan(file, books_, clock_.now());
}

void FileLedger::plan_if_contested() noexcept {
  if (!Planning::contested(*file_.mapped())) return;
  plan();
  planning_.commit(*file_.mapped());
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

bool FileLedger::charge(Pages pages, Pages wish) noexcept {
  if (abandoned_.load()) return false;
  const Hold hold(mutex_);
  if (slot_ == kNoSlot || !lock(kPatience)) return false;
  restate();
  test_point("charge.before");
  layout::File& file = *file_.mapped();
  layout::Slot& slot = file.slots[slot_];
  read_books(file, pool_, {}, books_);
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
    set(slot.charged, own_.load());
    test_point("charge.after");
    if (slot.claim.load() != 0 && wish) claim(wish);
  }
  if (contested) {
    if (granted) plan();
    planning_.commit(file);
  }
  unlock();
  return granted;
}

void FileLedger::drop_claim() noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  layout::Slot* const slot = own_slot();
  if (slot == nullptr || slot->claim.load() == 0 || !lock(kPatience)) return;
  claim({});
  plan();
  planning_.commit(*file_.mapped());
  unlock();
}

Duty FileLedger::duty() const noexcept {
  if (abandoned_.load() || slot_ == kNoSlot || !file_.intact()) return {};
  const layout::Tenant& tenant = file_.mapped()->tenants[tenant_];
  if (!Planning::contested(*file_.mapped())) return {};
  return {std::min(Pages(tenant.reclaim.load()), pool_), Pages(tenant.reuse.load())};
}

std::uint32_t FileLedger::rung() const noexcept {
  if (abandoned_.load() || slot_ == kNoSlot || !file_.intact()) return 0;
  return file_.mapped()->slots[slot_].bell.load(std::memory_order_acquire);
}

void FileLedger::wait(std::uint32_t seen, Duration most) const noexcept {
  if (abandoned_.load() || slot_ == kNoSlot || !file_.intact()) return;
  wait_for_ring(file_.mapped()->slots[slot_].bell, seen, most);
}

void FileLedger::wake() noexcept {
  if (abandoned_.load() || slot_ == kNoSlot || !file_.intact()) return;
  ring(file_.mapped()->slots[slot_].bell);
}

void FileLedger::uncharge(Pages pages) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  if (slot_ == kNoSlot) return;
  own_ = Pages(own_.load()).minus_clamped(pages).value;
  test_point("uncharge.before");
  if (!lock(kPatience)) return;
  restate();
  test_point("uncharge.after");
  plan_if_contested();
  unlock();
}

bool FileLedger::join(const JoinRequest& request, std::string& complaint) noexcept {
  if (abandoned_.load()) return false;
  const Hold hold(mutex_);
  if (slot_ != kNoSlot) return true;
  if (!lock(kJoinPatience)) {
    complaint =
        "cannot join the pool: its lock is held (is a process stopped?) or its file is gone";
    return false;
  }
  test_point("join.locked");
  const Instant now = clock_.now();
  bury_dead(file_, kNoSlot, pool_, now);
  limbo_ = settle_limbo(*file_.mapped(), pool_, {}, now, books_);
  const std::uint32_t taken = take_slot(file_);
  if (taken == kNoSlot) {
    unlock();
    complaint = "cannot join the pool: all " + std::to_string(layout::kSlots) + " places are taken";
    return false;
  }
  tenant_ = place_for(*file_.mapped(), request.tenant);
  admit(*file_.mapped(), tenant_, request, pool_, books_);
  limits_ = limits_of(file_.mapped()->tenants[tenant_], pool_);
  layout::Slot& slot = file_.mapped()->slots[taken];
  {
    const SlotChange change(slot);
    clear_texts(slot);
    set(slot.pid, process_);
    set_command(slot, request.command);
  }
  set(slot.generation, slot.generation.load() + 1);
  test_point("join.filled");
  slot_ = taken;
  restate();
  test_point("join.live");
  unlock();
  return true;
}

void FileLedger::publish(const Figures& figures) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  layout::Slot* slot = own_slot();
  if (slot == nullptr) return;
  const bool less = (figures.used + figures.fragmented).value < slot->used + slot->fragmented;
  write(*slot, figures);
  // Whoever waits for it is not to wait for the next look after the house.
  if (!less || !Planning::contested(*file_.mapped()) || !lock(kPatience)) return;
  plan_if_contested();
  unlock();
}

void FileLedger::write(layout::Slot& slot, const Figures& figures) noexcept {
  const SlotChange change(slot);
  if (!figures.want) {
    set(slot.want_since, std::int64_t{0});
  } else if (slot.want_since.load() == 0) {
    set(slot.want_since, std::int64_t{clock_.now().time_since_epoch().count()});
  }
  set(slot.heartbeat, std::int64_t{clock_.now().time_since_epoch().count()});
  set(slot.demand, figures.demand.value);
  set(slot.stripe, figures.stripe.value);
  set(slot.used, figures.used.value);
  set(slot.fragmented, figures.fragmented.value);
  set(slot.warm, figures.warm.value);
  test_point("publish.half");
  set(slot.want, figures.want.value);
  set(slot.reserved, figures.reserved.value);
  set(slot.short_grants, figures.short_grants);
  set(slot.grows, figures.grows);
  set(slot.releases, figures.releases);
}

void FileLedger::describe_model(const ModelShape& model) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  layout::Slot* slot = own_slot();
  if (slot == nullptr) return;
  const SlotChange change(*slot);
  // Readers take an empty name for "no model".
  set_model(*slot, model.name.empty() ? "unnamed" : std::string_view(model.name), model);
}

void FileLedger::report_adapter(std::string_view adapter, std::string_view state) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  layout::Slot* slot = own_slot();
  if (slot == nullptr) return;
  const SlotChange change(*slot);
  set_adapter(*slot, adapter, state);
}

Pages FileLedger::reap(Bytes gpu_free) noexcept {
  if (abandoned_.load()) return {};
  const Hold hold(mutex_);
  if (!lock(kPatience)) return limbo_;
  if (slot_ != kNoSlot) restate();
  const Instant now = clock_.now();
  bury_dead(file_, slot_, pool_, now);
  limbo_ = settle_limbo(*file_.mapped(), pool_, pages_down(gpu_free), now, books_);
  // Claims age, claimants die, and what was limbo may be free now.
  plan_if_contested();
  unlock();
  return limbo_;
}

TenantLimits FileLedger::limits() const noexcept {
  if (abandoned_.load()) return {};
  const Hold hold(mutex_);
  return limits_;
}

Snapshot FileLedger::snapshot() const {
  if (abandoned_.load()) return {};
  const auto numbers = std::make_unique<Numbers>();
  {
    const Hold hold(mutex_);
    const bool locked = lock(kPatience);
    const bool readable = file_.intact();
    if (readable) read_numbers(file_, slot_, pool_, *numbers);
    if (locked) unlock();
    if (!readable) return {};
  }
  return complete(*file_.mapped(), *numbers);
}

// The kernel drops the locks that the parent shares with us only when we have closed our copy.
// mutex_ may be held for ever by a thread that the fork did not copy, so it is left alone.
void FileLedger::abandon() noexcept {
  if (abandoned_.exchange(true)) return;
  own_ = 0;
  file_.close();
}

FileLedger::~FileLedger() {
  // A child that was never told of the fork must not unlock what it shares with its parent.
  if (abandoned_.load() || ::getpid() != process_) return;
  const Hold hold(mutex_);
  if (slot_ == kNoSlot || !lock(kPatience)) return;  // whoever reaps will find us dead
  restate();
  test_point("leave.before");
  // Letting go first makes us dead; then the common way takes its course.
  file_.unlock(layout::kLivenessByte + slot_);
  bury_dead(file_, kNoSlot, pool_, clock_.now());
  unlock();
}

}  // namespace

std::unique_ptr<Ledger> Ledger::open(const OpenRequest& request, const Clock& clock,
                                     Refusal& refusal, std::string& complaint) {
  PoolFile file = open_pool(request, refusal, complaint);
  if (refusal != Refusal::ok) return nullptr;
  return std::make_unique<FileLedger>(std::move(file), clock);
}

}  // namespace kvcached::ledger
