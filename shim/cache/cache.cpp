// The life of a cache: from the claim of its buffers to letting them go.
#include "shim/cache/cache.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "shim/cache/work_lock.hpp"

namespace kvcached::cache {

namespace {

bool belong_together(std::span<const std::shared_ptr<Buffer>> buffers) {
  return std::all_of(buffers.begin(), buffers.end(), [&](const std::shared_ptr<Buffer>& buffer) {
    return buffer->device() == buffers.front()->device() &&
           buffer->context() == buffers.front()->context() &&
           &buffer->budget() == &buffers.front()->budget();
  });
}

// In order, and those that touch joined. None when one is empty or too large for any cache.
bool join(std::span<const BlockRange> ranges, std::vector<BlockRange>& out) {
  out.assign(ranges.begin(), ranges.end());
  std::sort(out.begin(), out.end(),
            [](const BlockRange& a, const BlockRange& b) { return a.first < b.first; });
  std::size_t used = 0;
  for (const BlockRange& range : out) {
    if (range.count == 0 || range.end() < range.first) return false;
    if (used != 0 && range.first <= out[used - 1].end()) {
      out[used - 1].count = std::max(out[used - 1].end(), range.end()) - out[used - 1].first;
    } else {
      out[used++] = range;
    }
  }
  out.resize(used);
  return true;
}

Blocks blocks_in(Bytes bytes, const StripePlan& plan) {
  return Blocks(bytes.value / plan.block_bytes().value);
}

}  // namespace

Result Cache::create(const CacheRequest& request, Waker& waker, const Clock& clock,
                     std::shared_ptr<Cache>& out) noexcept {
  if (request.buffers.empty() || !belong_together(request.buffers)) return Result::invalid;
  try {
    std::vector<BlockRange> pinned;
    if (!join(request.pinned, pinned)) return Result::invalid;
    std::vector<Bytes> sizes;
    for (const auto& buffer : request.buffers) sizes.push_back(buffer->requested());
    const PlanRequest plan_request{request.segments,
                                   sizes,
                                   request.blocks,
                                   pinned,
                                   request.buffers.front()->budget().limit(),
                                   request.extent_bytes};
    StripePlan plan;
    const Result planned = StripePlan::make(plan_request, plan);
    if (planned != Result::ok) return planned;

    // make_shared cannot reach the private constructor.
    const std::shared_ptr<Cache> cache(new Cache(request, std::move(plan), waker, clock));
    const Result result = cache->start(cache, pinned);
    if (result == Result::ok) out = cache;
    return result;
  } catch (const std::bad_alloc&) {
    return Result::failed;
  }
}

Cache::Cache(const CacheRequest& request, StripePlan plan, Waker& waker, const Clock& clock)
    : plan_(std::move(plan)),
      buffers_(request.buffers.begin(), request.buffers.end()),
      waker_(waker),
      clock_(clock),
      fences_(buffers_.front()->driver(), buffers_.front()->context()),
      stripes_(plan_.stripe_count()),
      index_(plan_.stripe_count()),
      live_(request.blocks),
      warm_(blocks_in(request.warm_cap, plan_), blocks_in(request.warm_floor, plan_)) {
  for (std::size_t stripe = 0; stripe < stripes_.size(); ++stripe) index_.put_scratch(stripe);
}

Cache::~Cache() = default;

Result Cache::start(const std::shared_ptr<Cache>& self, std::span<const BlockRange> pinned) {
  // What takes memory comes before anything is claimed, so that nothing has to be undone for it.
  pinned_.assign(pinned.begin(), pinned.end());
  std::vector<std::size_t> backed;
  backed.reserve(stripes_.size());
  // Once claimed, the cache is found by the agent, which must not work on it yet.
  const WorkLock working(work_mutex_, mutex_, progress_);
  Result result = Result::ok;
  for (std::size_t i = 0; i < buffers_.size() && result == Result::ok; ++i) {
    result = buffers_[i]->claim(self);
    if (result != Result::ok) {
      for (std::size_t j = 0; j < i; ++j) buffers_[j]->unclaim();
    }
  }
  if (result != Result::ok) return result;
  result = repartition_all();
  if (result == Result::ok) result = pin(backed);
  if (result != Result::ok) {
    unclaim_all();
    {
      const std::lock_guard lock(mutex_);
      closed_ = finished_ = true;
    }
    drop_wish();
  }
  return result;
}

Result Cache::repartition_all() noexcept {
  // Work in flight, such as the engine's fill, may use any address: not only what is cut anew here
  // but also what is backed next.
  const driver::Status status = buffers_.front()->driver().synchronize(context());
  if (status != driver::Status::ok) return result_of(status);
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const Result result = buffers_[i]->repartition(plan_.partition(i));
    if (result != Result::ok) return result;
  }
  return Result::ok;
}

Result Cache::pin(std::vector<std::size_t>& backed) noexcept {
  for (const BlockRange& range : pinned_) {
    for (std::size_t stripe = plan_.stripe_of(range.first);
         stripe < stripes_.size() && plan_.stripe(stripe).first < range.end(); ++stripe) {
      Stripe& s = stripes_[stripe];
      if (s.state == State::scratch) {
        Duration retry{};
        // Without them there is no cache: the pool is to know that somebody waits.
        const Result result = back_stripe(stripe, pages_of(stripe), retry);
        if (result != Result::ok) {
          // Nothing that was launched uses the new extents, except strays: these end first.
          buffers_.front()->driver().synchronize(context());
          for (const std::size_t other : backed) unback_stripe(other);
          return result;
        }
        backed.push_back(stripe);
        const std::lock_guard lock(mutex_);
        ++grows_;
        change(stripe, State::ready, 0);
      }
      const BlockRange& all = plan_.stripe(stripe);
      const std::uint64_t first = std::max(range.first, all.first);
      const std::uint64_t count = std::min(range.end(), all.end()) - first;
      const std::lock_guard lock(mutex_);
      live_.insert({first, count});
      s.pinned += count;
      change(stripe, State::ready, s.live + count);
    }
  }
  return Result::ok;
}

void Cache::unclaim_all() noexcept {
  for (const std::shared_ptr<Buffer>& buffer : buffers_) buffer->unclaim();
}

void Cache::drop_wish() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(wished_, false)) return;
  }
  buffers_.front()->budget().drop_wish();
}

void Cache::close() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    expected_ = asked_ = 0;
    pinned_.clear();
    warm_.forget();
    for (std::size_t stripe = 0; stripe < stripes_.size(); ++stripe) {
      stripes_[stripe].pinned = 0;
      if (stripes_[stripe].state == State::ready) change(stripe, State::ready, 0);
    }
    available_ = 0;
  }
  drop_wish();  // work() may not be called any more: nobody finds a cache whose buffers are freed
  progress_.notify_all();
  waker_.wake();
}

bool Cache::closed() const noexcept {
  const std::lock_guard lock(mutex_);
  return closed_ || lost_;
}

bool Cache::finished() const noexcept {
  const std::lock_guard lock(mutex_);
  return finished_;
}

CacheStats Cache::stats() const {
  CacheStats stats;
  std::vector<bool> live(stripes_.size());
  std::vector<bool> pinned(stripes_.size());
  {
    const std::lock_guard lock(mutex_);
    stats.live = live_blocks_;
    stats.ready = available();
    stats.lost_blocks = lost_blocks_;
    stats.grows = grows_;
    stats.releases = releases_;
    stats.short_grants = short_grants_;
    stats.warm_hits = warm_hits_;
    stats.warm_misses = warm_misses_;
    stats.warm_in_vain = warm_in_vain_;
    const std::uint64_t needed = need(clock_.now());
    const std::uint64_t missing = needed > free_ready_ ? needed - free_ready_ : 0;
    stats.want = pages_up(plan_.block_bytes() * (missing + naming_));
    const std::uint64_t free = plan_.stripes().back().end() - live_blocks_;
    stats.expected = pages_up(plan_.block_bytes() * std::min(expected_, free));
    for (std::size_t stripe = 0; stripe < stripes_.size(); ++stripe) {
      live[stripe] = stripes_[stripe].live != 0;
      pinned[stripe] = stripes_[stripe].pinned != 0;
    }
  }
  for (const BlockRange& stripe : plan_.stripes()) stats.blocks += stripe.count;
  stats.stripes = plan_.stripe_count();
  stats.evicted = evicted_.load(std::memory_order_relaxed);
  stats.stripe = pages_of(stats.stripes / 2);
  for (std::size_t stripe = 0; stripe < pinned.size(); ++stripe) {
    const Pages pages = pages_of(stripe);
    stats.all += pages;
    if (pinned[stripe]) stats.pinned += pages;
  }
  for (const std::shared_ptr<Buffer>& buffer : buffers_) stats.held += buffer->held();

  // Stripes share pages: each piece that a live one needs counts once.
  std::vector<std::vector<bool>> seen(buffers_.size());
  for (std::size_t i = 0; i < seen.size(); ++i) seen[i].resize(plan_.partition(i).size());
  for (std::size_t stripe = 0; stripe < live.size(); ++stripe) {
    if (!live[stripe]) continue;
    for (const PieceRange& range : plan_.pieces(stripe)) {
      for (std::uint32_t piece = range.first; piece < range.first + range.count; ++piece) {
        if (seen[range.buffer][piece]) continue;
        seen[range.buffer][piece] = true;
        stats.used += Pages(plan_.partition(range.buffer)[piece].count());
      }
    }
  }
  const Pages of_live_stripes = std::min(stats.used, stats.held);
  const std::uint64_t told = in_use_.load(std::memory_order_relaxed);
  const std::uint64_t in_use = std::min(told, stats.live);
  stats.lends = told != kUntold;
  stats.used = std::min(of_live_stripes, pages_up(plan_.block_bytes() * in_use));
  stats.fragmented = of_live_stripes - stats.used;
  stats.warm = stats.held - of_live_stripes;
  return stats;
}

}  // namespace kvcached::cache
