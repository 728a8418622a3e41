// Taking blocks by their numbers: for callers of several caches that must hold the same ones.
#include <algorithm>

#include "shim/cache/cache.hpp"
#include "shim/cache/work_lock.hpp"

namespace kvcached::cache {

namespace {

constexpr Duration kLongestSleep = std::chrono::milliseconds(100);

}  // namespace

Result Cache::acquire_ranges(std::span<const BlockRange> ranges, Instant deadline) noexcept {
  bool wake = false;
  Named outcome = Named::taken;
  {
    std::unique_lock lock(mutex_);
    if (closed_ || lost_) return Result::lost;
    if (!std::all_of(ranges.begin(), ranges.end(), [&](BlockRange r) { return within(r); }))
      return Result::invalid;
    sample(clock_.now());
    std::size_t done = 0;
    std::uint64_t at = 0;
    for (; done < ranges.size() && outcome == Named::taken; ++done) {
      const BlockRange& range = ranges[done];
      for (at = range.first; at < range.end() && outcome == Named::taken;) {
        const std::size_t stripe = plan_.stripe_of(at);
        const std::uint64_t end = std::min(range.end(), plan_.stripe(stripe).end());
        outcome = take_part(stripe, {at, end - at}, deadline, lock);
        if (outcome == Named::taken) at = end;
      }
    }
    // Of a closed cache nothing is live any more.
    if (outcome == Named::lost || closed_ || lost_) return Result::lost;
    std::uint64_t blocks = 0;
    for (const BlockRange& range : ranges) blocks += range.count;
    if (outcome == Named::taken) {
      asked_ -= std::min(asked_, blocks);
    } else {
      // The last one counted was taken in part.
      for (std::size_t i = 0; i < done; ++i) {
        const BlockRange& range = ranges[i];
        const BlockRange taken{range.first, i + 1 == done ? at - range.first : range.count};
        live_.erase(taken);
        unlive(taken);
      }
      if (outcome == Named::refused) {
        forget_expected();
        if (index_.vacant() == 0 && index_.draining() == 0) {
          asked_ = blocks;
          asked_until_ = clock_.now() + kAskLapses;
        }
        wake = true;
      }
      if (waiting_ != 0) progress_.notify_all();
    }
    const Instant now = clock_.now();
    const bool surplus = index_.vacant() != 0 && sleeps_until_ == Instant::max();
    if (wake_if(surplus || (need(now) > free_ready_ && sleeps_until_ > now))) wake = true;
  }
  if (wake) waker_.wake();
  if (outcome == Named::taken) return Result::ok;
  return outcome == Named::not_free ? Result::invalid : Result::shortage;
}

// Makes free blocks of one stripe live, which is backed first where it is not.
Cache::Named Cache::take_part(std::size_t stripe, BlockRange part, Instant deadline,
                              std::unique_lock<std::mutex>& lock) noexcept {
  Named outcome = Named::late;
  naming_ += part.count;
  for (;;) {
    if (closed_ || lost_) {
      outcome = Named::lost;
      break;
    }
    if (live_.first_gap(part) != part) {
      outcome = Named::not_free;
      break;
    }
    const State state = stripes_[stripe].state;
    const bool backed = state == State::ready || state == State::draining;
    if (backed && stripes_[stripe].live == 0 && kept_for_others(stripe)) break;
    if (backed) {
      // Also out of a draining one: the order of the stream protects blocks that are used again.
      live_.insert(part);
      score_use(stripe);
      change(stripe, State::ready, stripes_[stripe].live + part.count);
      outcome = Named::taken;
      break;
    }
    const Instant now = clock_.now();
    if (state == State::lost || now >= deadline) break;
    if (state == State::scratch && now < grow_at_) {
      outcome = Named::refused;
      break;
    }
    std::unique_lock work(work_mutex_, std::try_to_lock);
    if (work.owns_lock() && state == State::scratch) {
      change(stripe, State::growing, 0);
      lock.unlock();
      Growth growth = Growth::grown;
      {
        const WorkLock working(std::move(work), mutex_, progress_);
        growth = grow(stripe, pages_of(stripe), now);
      }
      lock.lock();
      if (growth != Growth::refused) continue;
      outcome = Named::refused;
      break;
    }
    if (work.owns_lock()) work.unlock();
    progress_.wait_for(lock, std::min<Duration>(deadline - now, kLongestSleep));
  }
  naming_ -= part.count;
  return outcome;
}

}  // namespace kvcached::cache
