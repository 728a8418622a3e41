// Handing out blocks and taking them back: the side of a cache that never waits for the driver.
#include <algorithm>
#include <utility>

#include "shim/cache/cache.hpp"
#include "shim/cache/work_lock.hpp"

namespace kvcached::cache {

namespace {

using std::chrono::milliseconds;

constexpr Duration kLongestSleep = milliseconds(100);  // of a waiter: the pool tells nobody
constexpr Duration kAnHour = std::chrono::hours(1);    // what may be added to any instant

}  // namespace

std::uint64_t Cache::free_of(std::size_t stripe) const noexcept {
  return plan_.stripe(stripe).count - stripes_[stripe].live;
}

// The one place where a stripe changes: keeps the sums and the index in step with it.
void Cache::change(std::size_t stripe, State state, std::uint64_t live) noexcept {
  Stripe& s = stripes_[stripe];
  const auto free_in = [&](State which) { return s.state == which ? free_of(stripe) : 0; };
  free_ready_ -= free_in(State::ready);
  free_draining_ -= free_in(State::draining);
  free_vacant_ -= s.live == 0 ? free_in(State::ready) : 0;
  live_blocks_ += live - s.live;
  if ((s.live == 0) != (live == 0)) {
    const Pages pages = pages_of(stripe);
    in_use_pages_ = live != 0 ? in_use_pages_ + pages : in_use_pages_.minus_clamped(pages);
  }
  if (state == State::lost && s.state != State::lost) lost_blocks_ += plan_.stripe(stripe).count;
  s.state = state;
  s.live = live;
  free_ready_ += free_in(State::ready);
  free_draining_ += free_in(State::draining);
  free_vacant_ += s.live == 0 ? free_in(State::ready) : 0;
  place(stripe);
  count_available();
}

// What acquire would give: see kept_for_others.
void Cache::count_available() noexcept {
  std::uint64_t blocks = free_ready_ + free_draining_;
  if (under_press_) blocks -= free_draining_;
  if (gated_ || pressed_) blocks -= free_vacant_;
  available_.store(closed_ || lost_ ? 0 : blocks, std::memory_order_relaxed);
}

void Cache::place(std::size_t stripe) noexcept {
  const Stripe& s = stripes_[stripe];
  switch (s.state) {
    case State::scratch:
      return index_.put_scratch(stripe);
    case State::draining:
      return index_.put_draining(stripe);
    case State::ready:
      if (s.live == 0) return index_.put_vacant(stripe);
      if (free_of(stripe) == 0) break;
      return index_.put_partial(stripe, s.live, plan_.stripe(stripe).count);
    case State::growing:
    case State::releasing:
    case State::lost:
      break;
  }
  index_.put_nowhere(stripe);
}

Acquired Cache::acquire(std::uint64_t blocks, bool whole_stripes,
                        std::span<BlockRange> out) noexcept {
  const Instant now = clock_.now();
  Acquired got;
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || lost_) return {Result::lost};
    sample(now);
    while (got.blocks < blocks) {
      const std::size_t stripe = index_.to_acquire();
      if (stripe == StripeIndex::kNone) break;
      if (stripes_[stripe].live == 0 && kept_for_others(stripe)) break;
      const std::uint64_t most = whole_stripes ? free_of(stripe) : blocks - got.blocks;
      const std::uint64_t taken = take_from(stripe, most, out, got.ranges);
      got.blocks += taken;
      if (taken < std::min(most, taken + free_of(stripe))) break;  // no room for more ranges
    }
    asked_ = got.blocks < blocks ? blocks - got.blocks : 0;
    asked_until_ = now + kAskLapses;
    wake = wake_if(need(now) > free_ready_ && sleeps_until_ > now);
  }
  if (wake) waker_.wake();
  if (got.blocks < blocks) got.result = Result::shortage;
  return got;
}

// Whether a stripe without live blocks must not be put to use again, because others wait for it.
bool Cache::kept_for_others(std::size_t stripe) const noexcept {
  return gated_ || pressed_ || (under_press_ && stripes_[stripe].state == State::draining);
}

// Takes up to `most` blocks out of a stripe, as far as there is room for ranges.
std::uint64_t Cache::take_from(std::size_t stripe, std::uint64_t most, std::span<BlockRange> out,
                               std::size_t& used) noexcept {
  const BlockRange all = plan_.stripe(stripe);
  std::uint64_t taken = 0;
  std::uint64_t at = all.first;
  while (taken < most) {
    BlockRange gap = live_.first_gap({at, all.end() - at});
    if (gap.count == 0) break;
    gap.count = std::min(gap.count, most - taken);
    if (used != 0 && out[used - 1].end() == gap.first) {
      out[used - 1].count += gap.count;
    } else if (used != out.size()) {
      out[used++] = gap;
    } else {
      break;
    }
    live_.insert(gap);
    taken += gap.count;
    at = gap.end();
  }
  // Also out of a draining one: the order of the stream protects blocks that are used again.
  if (taken != 0) {
    score_use(stripe);
    change(stripe, State::ready, stripes_[stripe].live + taken);
  }
  return taken;
}

// Before blocks of it become live.
void Cache::score_use(std::size_t stripe) noexcept {
  Stripe& s = stripes_[stripe];
  if (s.live == 0 && s.made != Made::late) ++warm_hits_;
  s.made = Made::used;
}

Result Cache::release(std::span<const BlockRange> ranges) noexcept {
  const Instant now = clock_.now();
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || lost_) return Result::lost;
    // A block named twice is not live the second time; then all that came before is put back.
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      const BlockRange& range = ranges[i];
      if (!within(range) || !live_.contains_all(range) || is_pinned(range)) {
        for (const BlockRange& before : ranges.first(i)) live_.insert(before);
        return Result::invalid;
      }
      live_.erase(range);
    }
    sample(now);
    const std::size_t vacant = index_.vacant();
    for (const BlockRange& range : ranges) unlive(range);
    // The pool is to hear at once what could be had.
    wake = wake_if(index_.vacant() > vacant && sleeps_until_ > now);
    if (waiting_ != 0) progress_.notify_all();
  }
  if (wake) waker_.wake();
  return Result::ok;
}

bool Cache::within(BlockRange range) const noexcept {
  const std::uint64_t blocks = plan_.stripes().back().end();
  return range.first <= blocks && range.count <= blocks - range.first;
}

// Of live blocks whose bits are cleared already.
void Cache::unlive(BlockRange range) noexcept {
  std::uint64_t at = range.first;
  for (std::size_t stripe = plan_.stripe_of(at); at < range.end(); ++stripe) {
    const std::uint64_t end = std::min(range.end(), plan_.stripe(stripe).end());
    change(stripe, State::ready, stripes_[stripe].live - (end - at));
    at = end;
  }
}

bool Cache::is_pinned(BlockRange range) const noexcept {
  const auto next =
      std::partition_point(pinned_.begin(), pinned_.end(),
                           [&](const BlockRange& pinned) { return pinned.end() <= range.first; });
  return next != pinned_.end() && range.count != 0 && next->first < range.end();
}

void Cache::expect(std::uint64_t blocks) noexcept {
  const Instant now = clock_.now();
  blocks = std::min(blocks, plan_.stripes().back().end());
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || lost_) return;
    if (blocks > expected_) ahead_at_ = Instant();
    expected_ = blocks;
    wake = wake_if(need(now) > free_ready_ && sleeps_until_ > now);
  }
  if (wake) waker_.wake();
}

void Cache::trim() noexcept {
  {
    const std::lock_guard lock(mutex_);
    forget_expected();
  }
  waker_.wake();
}

void Cache::forget_expected() noexcept {
  expected_ = asked_ = 0;
  warm_.forget();
  wake_if(true);
}

// Pages that it holds alone or shares with a neighbour: what letting it go frees at most.
Pages Cache::pages_of(std::size_t stripe) const noexcept {
  Pages sum;
  for (const PieceRange& range : plan_.pieces(stripe)) {
    const auto runs = plan_.partition(range.buffer);
    for (std::uint32_t i = range.first; i < range.first + range.count; ++i) {
      sum += Pages(runs[i].count());
    }
  }
  return sum;
}

Pages Cache::press(Pages pages, bool gated) noexcept {
  bool wake = false;
  Pages found;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || lost_) return {};
    under_press_ = static_cast<bool>(pages);
    gated_ = gated;
    pressed_ = Pages();
    if (under_press_) {
      for (std::size_t stripe = index_.to_undrain(); stripe != StripeIndex::kNone;
           stripe = index_.next_draining(stripe)) {
        found += pages_of(stripe);
      }
      pressed_ = pages.minus_clamped(found);
      for (std::size_t stripe = index_.first_vacant(); stripe != StripeIndex::kNone;
           stripe = index_.next_vacant(stripe)) {
        found += pages_of(stripe);
      }
    }
    count_available();
    wake = wake_if(pressed_ && index_.vacant() != 0 && sleeps_until_ > clock_.now());
  }
  if (wake) waker_.wake();
  return found;
}

Pages Cache::in_use_pages() const noexcept {
  const std::lock_guard lock(mutex_);
  return in_use_pages_;
}

bool Cache::waits_for_pool() const noexcept {
  const std::lock_guard lock(mutex_);
  return wished_;
}

Pages Cache::unused_pages() const noexcept {
  const std::uint64_t in_use = in_use_.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  std::uint64_t acquired = live_blocks_;
  for (const BlockRange& range : pinned_) acquired -= std::min(acquired, range.count);
  return acquired > in_use ? pages_down(plan_.block_bytes() * (acquired - in_use)) : Pages();
}

void Cache::set_pressure(Pages pages) noexcept {
  const std::uint64_t bytes = bytes_of(pages).value;
  const std::uint64_t block = plan_.block_bytes().value;
  const std::uint64_t blocks = (bytes + block - 1) / block;
  {
    const std::lock_guard lock(mutex_);
    if (pressure_.exchange(blocks) == 0 && blocks != 0) progress_.notify_all();
  }
  const std::lock_guard lock(telling_);
  const bool rises = blocks > std::exchange(told_, blocks);
  if (rises) listener_.tell(blocks);
}

void Cache::on_reclaim(std::function<void(std::uint64_t)> tell) noexcept {
  const std::lock_guard lock(telling_);
  listener_.set(std::move(tell));
  told_ = 0;
}

Result Cache::wait_pressure(Instant deadline) noexcept {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (closed_ || lost_) return Result::lost;
    if (pressure() != 0) return Result::ok;
    const Instant now = clock_.now();
    if (now >= deadline) return Result::shortage;
    progress_.wait_for(lock, std::min<Duration>(deadline - now, kAnHour));
  }
}

void Cache::pool_changed() noexcept {
  const Instant now = clock_.now();
  const std::lock_guard lock(mutex_);
  if (failures_ != 0 || now >= grow_at_) return;
  grow_at_ = Instant();
  wake_if(need(now) > free_ready_);
  if (waiting_ != 0) progress_.notify_all();
}

// What is only expected is tried again at ever longer times: a tenant at its maximum would never
// rest else.
void Cache::put_off_growth(Instant retry_at) noexcept {
  const Instant now = clock_.now();
  grow_at_ = retry_at;
  ahead_pause_ = std::clamp<Duration>(ahead_pause_ * 2, milliseconds(5), std::chrono::seconds(1));
  ahead_at_ = std::max(retry_at, now + ahead_pause_);
}

void Cache::may_grow() noexcept {
  grow_at_ = ahead_at_ = Instant();
  ahead_pause_ = Duration();
}

// What callers miss now.
std::uint64_t Cache::asked(Instant now) const noexcept {
  return std::max(waiting_, now < asked_until_ ? asked_ : 0);
}

// Free blocks that should be backed: worth growing for.
std::uint64_t Cache::need(Instant now) const noexcept {
  return asked(now) + (under_press_ ? 0 : warm_.capped(Blocks(expected_)).value);
}

// Once until the next work().
bool Cache::wake_if(bool needed) noexcept {
  if (needed) sleeps_until_ = Instant();
  return needed;
}

Result Cache::wait_ready(std::uint64_t blocks, Instant deadline, Patience patience) noexcept {
  std::unique_lock lock(mutex_);
  if (blocks > plan_.stripes().back().end()) return Result::shortage;
  waiting_ += blocks;
  const std::uint64_t refusals = refusals_;
  Result result = Result::ok;
  while (available() < blocks || closed_ || lost_) {
    const Instant now = clock_.now();
    const bool refused = refusals_ != refusals || now < grow_at_;
    const bool nothing_left = index_.scratch() == 0;
    if (closed_ || lost_) {
      result = Result::lost;
      break;
    }
    if (now >= deadline || (patience == Patience::mapping && refused)) {
      result = Result::shortage;
      break;
    }
    std::unique_lock work(work_mutex_, std::try_to_lock);
    if (work.owns_lock() && nothing_left && patience == Patience::mapping) {
      result = Result::shortage;
      work.unlock();
      break;
    }
    if (work.owns_lock() && !nothing_left && now >= grow_at_) {
      lock.unlock();
      {
        const WorkLock working(std::move(work), mutex_, progress_);
        grow_one(now);
      }
      lock.lock();
      continue;
    }
    if (work.owns_lock()) work.unlock();
    Duration sleep = std::min<Duration>(deadline - now, kLongestSleep);
    if (now < grow_at_) sleep = std::min<Duration>(sleep, grow_at_ - now);
    progress_.wait_for(lock, sleep);
  }
  waiting_ -= blocks;
  return result;
}

}  // namespace kvcached::cache
