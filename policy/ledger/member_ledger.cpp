// A membership's beginning and end, and what its member says and hears in between.
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <memory>

#include "policy/ledger/bell.hpp"
#include "policy/ledger/counters.hpp"
#include "policy/ledger/file_ledger.hpp"
#include "policy/ledger/newcomer.hpp"
#include "policy/ledger/reap.hpp"
#include "policy/ledger/room.hpp"
#include "policy/ledger/siblings.hpp"
#include "policy/ledger/snapshot.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

constexpr Duration kNoBell = std::chrono::milliseconds(10);
constexpr int kJoinPatience = 1000;  // ms; an engine that starts can wait longer
constexpr std::uint32_t kMostFitting = std::numeric_limits<std::uint32_t>::max() - 1;

}  // namespace

FileLedger::FileLedger(PoolFile file, Pages gpu_total, const Clock& clock)
    : file_(std::move(file)),
      clock_(clock),
      most_(std::min(std::max(Pages(file_.mapped()->header.pool_pages.load()), gpu_total),
                     Pages(layout::kMaxPoolPages))),
      process_(::getpid()) {}

bool FileLedger::join(const JoinRequest& request, std::string& complaint) {
  if (abandoned_.load()) return false;
  const Hold hold(mutex_);
  if (slot_ != kNoSlot) return true;
  if (!lock(kJoinPatience)) {
    complaint =
        "cannot join the pool: its lock is held (is a process stopped?) or its file is gone";
    return false;
  }
  test_point("join.locked");
  layout::File& file = *file_.mapped();
  const Instant now = clock_.now();
  bury_dead(file_, kNoSlot, SlotSet().set(), now);
  limbo_ = settle_limbo(file, size(), {}, now, books_);
  // With nobody there to have given something back meanwhile, one look is enough.
  if (request.gpu_free && books_.tenants_end == 0) {
    set(file.header.shortfall_seen, layout::kMaxPoolPages);
    note_shortfall(file, pages_down(*request.gpu_free), books_);
  }
  const std::uint32_t taken = take_slot(file_);
  if (taken == kNoSlot) {
    unlock();
    complaint = "cannot join the pool: all " + std::to_string(layout::kSlots) + " places are taken";
    return false;
  }
  tenant_ = place_for(file, request.tenant);
  admit(file, tenant_, request, size(), books_);
  trimmed_ = tenant().trim.load();
  layout::Slot& slot = file.slots[taken];
  {
    const SlotChange change(slot);
    clear_texts(slot);
    set(slot.pid, process_);
    set(slot.pid_namespace, pid_namespace());
    set(slot.trimmed, trimmed_.load());
    set_command(slot, request.command);
  }
  set(slot.generation, slot.generation.load() + 1);
  test_point("join.filled");
  slot_ = taken;
  restate();
  heard();
  test_point("join.live");
  unlock();
  return true;
}

void FileLedger::ring_siblings() noexcept {
  layout::File& file = *file_.mapped();
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    if (k != slot_ && tenant_of_living(file, k) == tenant_) ring(file.slots[k].bell);
  }
}

// The books take this process's own lock, so only who has somebody to give to reads them.
Pages FileLedger::due_to_siblings() const noexcept {
  const layout::File& file = *file_.mapped();
  const Instant now = clock_.now();
  const Place own{slot_, tenant_};
  if (!sibling_waits(file, own, now)) return {};
  const Hold hold(mutex_);
  if (!here()) return {};
  read_books(file, size(), {}, books_);
  return std::min(ledger::due_to_siblings(file, books_, own, now), most_);
}

Duty FileLedger::duty() const noexcept {
  if (!here()) return {};
  const layout::Tenant& own = tenant();
  Duty duty;
  const std::uint32_t order = own.trim.load(std::memory_order_acquire);
  if (order != trimmed_.load()) duty.trim = order;
  duty.reclaim = due_to_siblings();
  const layout::File& file = *file_.mapped();
  if (!Planning::contested(file)) return duty;
  const Place place{slot_, tenant_};
  const Instant now = clock_.now();
  const Pages reclaim = std::min(Pages(own.reclaim.load()), most_);
  duty.reclaim = std::max(duty.reclaim, ledger::part_of_reclaim(file, reclaim, place, most_, now));
  duty.reuse = ledger::part_of_reuse(file, Pages(own.reuse.load()), place, most_, now);
  return duty;
}

std::uint32_t FileLedger::rung() const noexcept {
  return here() ? file_.mapped()->slots[slot_].bell.load(std::memory_order_acquire) : 0;
}

void FileLedger::wait(std::uint32_t seen, Duration most) const noexcept {
  if (here()) return wait_for_ring(file_.mapped()->slots[slot_].bell, seen, most);
  // Nobody can ring, and whoever waits in a loop is not to spin.
  const timespec sleep{0, static_cast<long>(std::clamp(most, Duration(), kNoBell).count())};
  ::nanosleep(&sleep, nullptr);
}

void FileLedger::wake() noexcept {
  if (here()) ring(file_.mapped()->slots[slot_].bell);
}

void FileLedger::publish(const Figures& figures) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  layout::Slot* slot = own_slot();
  if (slot == nullptr) return;
  const Instant now = clock_.now();
  const bool less = (figures.used + figures.fragmented).value < slot->used + slot->fragmented;
  {
    const SlotChange change(*slot);
    const std::int64_t instant{now.time_since_epoch().count()};
    if (!figures.want) {
      set(slot->want_since, std::int64_t{0});
    } else if (slot->want_since.load() == 0) {
      set(slot->want_since, instant);
    }
    set(slot->heartbeat, instant);
    set(slot->demand, figures.demand.value);
    set(slot->stripe, figures.stripe.value);
    set(slot->used, figures.used.value);
    set(slot->fragmented, figures.fragmented.value);
    set(slot->warm, figures.warm.value);
    test_point("publish.half");
    set(slot->want, figures.want.value);
    set(slot->reserved, figures.reserved.value);
    set(slot->short_grants, figures.short_grants);
    set(slot->grows, figures.grows);
    set(slot->releases, figures.releases);
    set(slot->least, figures.least.value);
    set(slot->plain, figures.plain.value);
    set(slot->plain_peak, figures.plain_peak.value);
    set(slot->fitting, figures.fitting ? std::min(*figures.fitting, kMostFitting) + 1 : 0U);
  }
  count_figures(tenant(), told_, figures);
  told_ = figures;
  // What lasts is shown while it lasts.
  if (below_min_at_) {
    count_below_min(tenant(), now - *below_min_at_);
    below_min_at_ = now;
  }
  // Whoever waits for it is not to wait for the next look after the house.
  const bool matters = claim_ends_.load() || (less && Planning::contested(*file_.mapped()));
  if (!matters || !lock(kPatience)) return;
  restate();
  plan();
  planning_.commit(*file_.mapped());
  unlock();
}

void FileLedger::trimmed(std::uint32_t order) noexcept {
  if (abandoned_.load()) return;
  const Hold hold(mutex_);
  trimmed_ = order;
  layout::Slot* slot = own_slot();
  if (slot == nullptr) return;
  const SlotChange change(*slot);
  set(slot->trimmed, order);
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

Pages FileLedger::pool() const noexcept {
  if (abandoned_.load() || !file_.intact()) return {};
  return size().now;
}

bool FileLedger::removed() const noexcept { return !abandoned_.load() && file_.removed(); }

TenantLimits FileLedger::limits() const noexcept {
  if (!here()) return {};
  return limits_of(tenant(), size().now);
}

// Without the lock on the file: a limit that changes meanwhile is seen by the next look.
std::optional<Pages> FileLedger::reach() const noexcept {
  if (abandoned_.load()) return std::nullopt;
  const Hold hold(mutex_);
  if (!here()) return std::nullopt;
  read_books(*file_.mapped(), size(), {}, books_);
  return kvcached::ledger::reach(books_, tenant_);
}

Snapshot FileLedger::snapshot() const {
  if (abandoned_.load()) return {};
  const auto numbers = std::make_unique<Numbers>();
  {
    const Hold hold(mutex_);
    if (!file_.intact()) return {};
    const SlotSet suspects = find_dead(file_, slot_);
    const bool locked = lock(kPatience);
    const bool readable = locked || file_.intact();
    if (readable) read_numbers(file_, slot_, suspects, size(), *numbers);
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
  end_wait();
  end_refusal();
  test_point("leave.before");
  // Letting go first makes us dead; then the common way takes its course.
  file_.unlock(layout::kLivenessByte + slot_);
  bury_dead(file_, kNoSlot, SlotSet().set(slot_), clock_.now());
  unlock();
}

}  // namespace kvcached::ledger
