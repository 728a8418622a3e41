// Backing stripes and letting them go: the side of a cache that calls the driver, one worker at a
// time.
#include <algorithm>
#include <utility>

#include "shim/cache/cache.hpp"
#include "shim/cache/work_lock.hpp"

namespace kvcached::cache {

namespace {

using std::chrono::milliseconds;

constexpr Duration kSoon = milliseconds(1);       // to try again to take a fence
constexpr Duration kDecay = milliseconds(100);    // to look at warm stripes again
constexpr Duration kPoolRetry = milliseconds(5);  // after the pool refused
constexpr Duration kDriverRetry = milliseconds(50);
constexpr std::uint32_t kMostDoublings = 5;

// Calls f(buffer, piece) for the pieces of a stripe, until it answers false.
template <class F>
void for_pieces(std::span<const PieceRange> ranges, F f) {
  for (const PieceRange& range : ranges) {
    for (std::uint32_t piece = range.first; piece < range.first + range.count; ++piece) {
      if (!f(range.buffer, piece)) return;
    }
  }
}

}  // namespace

Work Cache::work() noexcept {
  const Instant now = clock_.now();
  const WorkLock working(std::unique_lock(work_mutex_, std::try_to_lock), mutex_, progress_);
  if (!working.owned()) return {false, now + kSoon};
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return {};
    sleeps_until_ = Instant();
    sample(now);
    if (!lost_) undrain(now);
  }
  drop_wish_if_met(now);
  if (fences_.open() && fences_.poll() == Result::lost) lose();
  const bool worked = grow_if_needed(now) || release_one() || mark_surplus(now) ||
                      fence_marked(now) || sweep(now) || finish_if_empty();
  return worked ? Work{true} : idle(now);
}

// ---- Growing

// Takes draining stripes back before new ones are backed.
void Cache::undrain(Instant now) noexcept {
  if (closed_ || under_press_) return;
  while (need(now) > free_ready_) {
    const std::size_t stripe = index_.to_undrain();
    if (stripe == StripeIndex::kNone) return;
    change(stripe, State::ready, 0);
  }
}

// A caller that gave up waiting must not keep others giving.
void Cache::drop_wish_if_met(Instant now) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_ && !lost_ && asked(now) > free_ready_) return;
  }
  drop_wish();
}

bool Cache::grow_if_needed(Instant now) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (need(now) <= free_ready_) {
      refused_ = false;
      return false;
    }
    if (asked(now) <= free_ready_ && now < ahead_at_) return false;
  }
  return grow_one(now) == Growth::grown;
}

Cache::Growth Cache::grow_one(Instant now) noexcept {
  std::size_t stripe = StripeIndex::kNone;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || lost_) return Growth::lost;
    if (now < grow_at_) return Growth::refused;
    stripe = index_.to_back();
    if (stripe == StripeIndex::kNone) return Growth::exhausted;
    change(stripe, State::growing, 0);
  }
  return grow(stripe, wish(now, stripe), now);
}

Cache::Growth Cache::grow(std::size_t stripe, Pages wish, Instant now) noexcept {
  Duration retry{};
  const Result result = back_stripe(stripe, wish, retry);
  return settle_growth(stripe, result, now + retry);
}

Cache::Growth Cache::settle_growth(std::size_t stripe, Result result, Instant retry_at) noexcept {
  const bool piece_lost = result != Result::ok && has_lost_piece(stripe);
  Growth growth = Growth::refused;
  {
    const std::lock_guard lock(mutex_);
    if (result == Result::ok) {
      const bool waited_for = asked(clock_.now()) > free_ready_ || naming_ != 0;
      stripes_[stripe].made = waited_for ? Made::late : Made::ahead;
      if (waited_for) ++warm_misses_;
      change(stripe, State::ready, 0);
      ++grows_;
      failures_ = 0;
      refused_ = false;
      ahead_at_ = Instant();
      ahead_pause_ = Duration();
      growth = Growth::grown;
    } else {
      change(stripe, piece_lost ? State::lost : State::scratch, 0);
      if (!refused_) ++short_grants_;
      refused_ = true;
      ++refusals_;
      put_off_growth(retry_at);
    }
  }
  progress_.notify_all();
  if (result == Result::lost) {
    if (!closed()) lose();  // else a buffer was freed
    growth = Growth::lost;
  }
  if (piece_lost) mark_lost_stripes();
  return growth;
}

// What a caller waits for, with what is ready for it already; none when that is enough. A wish is
// met as a whole: who does not wait takes what comes, so that it is one stripe.
Pages Cache::wish(Instant now, std::size_t stripe) noexcept {
  const std::lock_guard lock(mutex_);
  if (asked(now) <= free_ready_) return {};
  const Pages ready = pages_up(plan_.block_bytes() * free_ready_);
  return std::max(pages_up(plan_.block_bytes() * waiting_), ready + pages_of(stripe));
}

// False: it stands already.
bool Cache::begin_wish() noexcept {
  const std::lock_guard lock(mutex_);
  if (std::exchange(wished_, true)) return false;
  buffers_.front()->budget().begin_wish();  // under the lock, so that none drops it before
  return true;
}

// All pieces of a stripe, or none. `retry`: when a refusal is worth another try.
Result Cache::back_stripe(std::size_t stripe, Pages wish, Duration& retry) noexcept {
  const std::span<const PieceRange> pieces = plan_.pieces(stripe);
  Budget& budget = buffers_.front()->budget();
  Pages missing;
  for_pieces(pieces, [&](std::uint32_t buffer, std::uint32_t piece) {
    missing += buffers_[buffer]->missing(piece);
    return true;
  });
  retry = kPoolRetry;
  if (missing && !budget.charge(missing, wish)) {
    const bool first = wish && begin_wish();
    if (first) waker_.wake();   // the agent's house is kept more often from now on
    if (closed()) drop_wish();  // close() may have come before the wish
    return Result::shortage;
  }

  Pages surplus = missing;
  Result result = Result::ok;
  std::size_t done = 0;
  for_pieces(pieces, [&](std::uint32_t buffer, std::uint32_t piece) {
    Pages kept;
    result = buffers_[buffer]->back(piece, kept);
    surplus -= kept;
    if (result == Result::ok) ++done;
    return result == Result::ok;
  });
  if (result == Result::ok) return result;

  for_pieces(pieces, [&](std::uint32_t buffer, std::uint32_t piece) {
    if (done == 0) return false;
    --done;
    Pages freed;
    buffers_[buffer]->unback(piece, freed);
    surplus += freed;
    return true;
  });
  if (surplus) budget.uncharge(surplus);
  const std::lock_guard lock(mutex_);
  retry = kDriverRetry * (1U << std::min(failures_, kMostDoublings));
  if (result != Result::shortage) ++failures_;
  return result;
}

// ---- Letting go

// Vacant stripes that are more than enough are marked, or that others wait for (callers who wait
// for them here are in the pool's line with those); a fence taken after that covers all that was
// launched while they were in use.
bool Cache::mark_surplus(Instant now) noexcept {
  const std::lock_guard lock(mutex_);
  if (lost_) return false;
  const Blocks expected(expected_);
  const std::uint64_t keep =
      closed_ ? 0 : asked(now) + warm_.keep(Blocks(live_blocks_), expected).value;
  bool marked = false;
  for (;;) {
    const std::size_t stripe = index_.to_drain();
    if (stripe == StripeIndex::kNone) break;
    if (free_ready_ - free_of(stripe) < (pressed_ ? 0 : keep)) break;
    pressed_ = pressed_.minus_clamped(pages_of(stripe));
    stripes_[stripe].ticket = 0;
    change(stripe, State::draining, 0);
    marked = true;
  }
  return marked;
}

bool Cache::fence_marked(Instant now) noexcept {
  if (now < fence_at_ || !number_marked(0)) return false;
  Fences::Ticket ticket = 0;
  const Result result = fences_.take(ticket);
  if (result == Result::ok) return number_marked(ticket);
  fence_at_ = now + kSoon;
  if (result == Result::lost) lose();
  return false;
}

// Gives the ticket to those that have none. False when there are none.
bool Cache::number_marked(Fences::Ticket ticket) noexcept {
  bool any = false;
  const std::lock_guard lock(mutex_);
  for (std::size_t stripe = index_.to_undrain(); stripe != StripeIndex::kNone;
       stripe = index_.next_draining(stripe)) {
    if (stripes_[stripe].ticket != 0) continue;
    stripes_[stripe].ticket = ticket;
    any = true;
  }
  return any;
}

bool Cache::release_one() noexcept {
  std::size_t found = StripeIndex::kNone;
  {
    const std::lock_guard lock(mutex_);
    if (lost_) return false;
    for (std::size_t stripe = index_.to_undrain(); stripe != StripeIndex::kNone;
         stripe = index_.next_draining(stripe)) {
      const Fences::Ticket ticket = stripes_[stripe].ticket;
      if (ticket != 0 && fences_.passed(ticket)) found = stripe;
    }
    if (found == StripeIndex::kNone) return false;
    change(found, State::releasing, 0);
  }
  const Result result = unback_stripe(found);
  const bool piece_lost = result != Result::ok && has_lost_piece(found);
  {
    const std::lock_guard lock(mutex_);
    change(found, piece_lost ? State::lost : State::scratch, 0);
    ++releases_;
    if (std::exchange(stripes_[found].made, Made::used) == Made::ahead) ++warm_in_vain_;
    may_grow();  // there is room again
  }
  progress_.notify_all();
  if (piece_lost) mark_lost_stripes();
  return true;
}

// Goes on where a piece fails: it stays backed but unneeded, until the next sweep.
Result Cache::unback_stripe(std::size_t stripe) noexcept {
  Pages freed;
  Result worst = Result::ok;
  for_pieces(plan_.pieces(stripe), [&](std::uint32_t buffer, std::uint32_t piece) {
    Pages of_piece;
    const Result result = buffers_[buffer]->unback(piece, of_piece);
    freed += of_piece;
    worst = std::max(worst, result);
    return true;
  });
  if (freed) buffers_.front()->budget().uncharge(freed);
  return worst;
}

bool Cache::sweep(Instant now) noexcept {
  if (now < sweep_at_) return false;
  Pages freed;
  bool any = false;
  for (const std::shared_ptr<Buffer>& buffer : buffers_) {
    if (buffer->stranded() == 0) continue;
    any = true;
    Pages of_buffer;
    buffer->sweep(of_buffer);
    freed += of_buffer;
  }
  if (!any) return false;
  sweep_at_ = now + kDriverRetry;
  if (freed) buffers_.front()->budget().uncharge(freed);
  mark_lost_stripes();
  return bool(freed);
}

// ---- Ends

bool Cache::has_lost_piece(std::size_t stripe) const noexcept {
  bool lost = false;
  for_pieces(plan_.pieces(stripe), [&](std::uint32_t buffer, std::uint32_t piece) {
    lost = buffers_[buffer]->piece_lost(piece);
    return !lost;
  });
  return lost;
}

// A piece can only be lost while no stripe needs it; then all that would need it are lost too.
void Cache::mark_lost_stripes() noexcept {
  for (std::size_t stripe = 0; stripe < plan_.stripe_count(); ++stripe) {
    if (!has_lost_piece(stripe)) continue;
    const std::lock_guard lock(mutex_);
    if (stripes_[stripe].state == State::scratch) change(stripe, State::lost, 0);
  }
}

void Cache::lose() noexcept {
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
    available_ = 0;
  }
  progress_.notify_all();
}

bool Cache::finish_if_empty() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) return false;
    const bool holds = std::any_of(stripes_.begin(), stripes_.end(), [](const Stripe& s) {
      return s.state != State::scratch && s.state != State::lost;
    });
    if (holds && !lost_) return false;
    finished_ = true;
  }
  unclaim_all();
  return true;
}

Work Cache::idle(Instant now) noexcept {
  const std::lock_guard lock(mutex_);
  Instant next = Instant::max();
  if (!finished_ && !lost_) {
    if (fences_.open()) {
      next = now + fences_.pause();
    } else if (index_.draining() != 0) {
      next = now + kSoon;
    }
    if (!closed_ && need(now) > free_ready_ && index_.scratch() != 0) {
      const Instant at = asked(now) > free_ready_ ? grow_at_ : std::max(grow_at_, ahead_at_);
      next = std::min(next, std::max(at, now + kSoon));
    }
    const bool decays = warm_.decaying(Blocks(live_blocks_), Blocks(expected_));
    if (!closed_ && index_.vacant() != 0 && decays) next = std::min(next, now + kDecay);
    if (wished_) next = std::min(next, now + kDecay);
    const bool stranded = std::any_of(buffers_.begin(), buffers_.end(),
                                      [](const auto& buffer) { return buffer->stranded() != 0; });
    if (stranded) next = std::min(next, sweep_at_);
  }
  sleeps_until_ = next;
  return {false, next};
}

}  // namespace kvcached::cache
