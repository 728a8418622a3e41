// A cache: segments that share one space of blocks, grown and released by stripes.
//
// The rule it keeps: allocatable implies backed. acquire() hands out only blocks whose pages are
// mapped, and no page leaves before a fence over everything launched up to the release has passed.
//
//     scratch -> growing -> ready (warm while no block is live) -> draining -> releasing -> scratch
//                                   ^--------- taken back ----------'
//     lost: the driver failed in a way that left a piece unmapped; never allocatable again
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"
#include "policy/warm.hpp"
#include "shim/cache/block_set.hpp"
#include "shim/cache/buffer.hpp"
#include "shim/cache/fences.hpp"
#include "shim/cache/listener.hpp"
#include "shim/cache/result.hpp"
#include "shim/cache/stripe_index.hpp"
#include "shim/cache/stripe_plan.hpp"
#include "shim/cache/worker.hpp"

namespace kvcached::cache {

struct CacheRequest {
  std::span<const std::shared_ptr<Buffer>> buffers;  // each once; one device, one context, one pool
  std::span<const Segment> segments;                 // `buffer` counts in `buffers`
  std::uint64_t blocks = 0;
  std::span<const BlockRange> pinned;  // backed at once, never handed out nor released
  Bytes extent_bytes;                  // largest extent per segment; 0: chosen from the pool
  Bytes warm_cap = Bytes::max();       // most bytes kept backed without a live block
  Bytes warm_floor;                    // so many stay so once they were used
};

struct CacheStats {
  std::uint64_t blocks = 0;
  std::uint64_t live = 0;   // pinned ones included
  std::uint64_t ready = 0;  // backed and free
  std::uint64_t lost_blocks = 0;
  std::uint64_t stripes = 0;
  Pages held;                      // charged for this cache's buffers; shared pages once
  Pages used;                      // part of it that live blocks take
  Pages fragmented;                // part of it that cannot go before they do
  bool lends = false;              // …but for what the holder keeps free, and may release
  Pages warm;                      // the rest
  Pages want;                      // asked for and not there yet
  Pages expected;                  // will be used soon, as the caller announced, ready or not
  Pages stripe;                    // what most stripes hold
  std::uint64_t grows = 0;         // stripes backed
  std::uint64_t releases = 0;      // stripes released
  std::uint64_t short_grants = 0;  // times the pool or the GPU refused
  Pages all;                       // what all stripes would hold, shared pages once for each
  Pages pinned;                    // the same of those that are never let go
  // Of stripes that were ready without a live block.
  std::uint64_t warm_hits = 0;     // taken when blocks were asked for
  std::uint64_t warm_misses = 0;   // not there then: backed while somebody waited
  std::uint64_t warm_in_vain = 0;  // backed ahead, and let go without having been used
  std::uint64_t evicted = 0;       // blocks, as the caller tells
};

struct Acquired {
  Result result = Result::ok;  // shortage: fewer than asked, or more ranges than fit
  std::uint64_t blocks = 0;
  std::size_t ranges = 0;  // used of the caller's
};

// How long a caller waits for blocks.
enum class Patience : std::uint8_t {
  mapping,  // for the driver; a refusal ends the wait
  pool,     // for the pool too, until the deadline
};

// Thread-safe. acquire, release, expect, available and trim never wait for the driver;
// acquire_ranges, wait_ready and create do.
class Cache final : public Worker {
 public:
  // Claims the buffers, waits for the work of their context, cuts them into stripes and backs the
  // pinned blocks. Nothing stays claimed or backed on failure. invalid: geometry, or a buffer that
  // somebody has claimed; not_now: a capture is open; shortage: no pages for the pinned blocks.
  static Result create(const CacheRequest& request, Waker& waker, const Clock& clock,
                       std::shared_ptr<Cache>& out) noexcept;
  ~Cache() override;
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  // Takes up to `blocks` free blocks that are backed, from the fullest stripes first. With
  // `whole_stripes`, all free blocks of every stripe it takes from. What is missing is asked for: a
  // later call finds it, unless the pool refuses.
  Acquired acquire(std::uint64_t blocks, bool whole_stripes, std::span<BlockRange> out) noexcept;

  // Takes exactly these blocks, all or none, for callers of several caches that must hold the same
  // ones. What is not backed yet is mapped on this thread, or waited for where another maps it.
  // shortage: the pool or the driver refused, the deadline passed, or a block is lost; invalid: a
  // block that is live, outside or named twice. Then no block became live; after a refusal, what is
  // kept ready without having been named goes, so that its memory can serve a later attempt, and
  // without any the pool knows for a while what is missed.
  Result acquire_ranges(std::span<const BlockRange> ranges, Instant deadline) noexcept;

  // Returns blocks. invalid: a block that is not live, pinned or named twice; nothing was changed.
  Result release(std::span<const BlockRange> ranges) noexcept;

  // So many blocks more are kept free and backed, within the warm cap, until the next call.
  void expect(std::uint64_t blocks) noexcept;
  // Of the live blocks, so many are in use: for callers that keep a free list of their own. Shown;
  // and when none is, what is warm decays faster.
  void in_use(std::uint64_t blocks) noexcept { in_use_.store(blocks, std::memory_order_relaxed); }
  // The caller has dropped what so many blocks held for later use. Counted only.
  void evicted(std::uint64_t blocks) noexcept { evicted_ += blocks; }
  // Blocks that acquire would give now.
  std::uint64_t available() const noexcept { return available_.load(std::memory_order_relaxed); }

  // Waits until `blocks` are available, mapping stripes on this thread if no other does. shortage:
  // the deadline passed, nothing is left to back, or (Patience::mapping) the pool refused.
  Result wait_ready(std::uint64_t blocks, Instant deadline, Patience patience) noexcept;

  // Lets all stripes without a live block go, through work(); forgets what was expected.
  void trim() noexcept;

  // Others wait for memory: gives back so many pages, as far as they are without a live block, and
  // grows for callers that wait only. `gated`: more is in use than the tenant's share, so that what
  // comes free is not put to use again either. Each call replaces the last; none: nobody waits any
  // more. Returns what it can give, on its way out already or soon.
  Pages press(Pages pages, bool gated) noexcept;
  // Pages that stripes with live blocks hold.
  Pages in_use_pages() const noexcept;
  // The pool refused what a caller waits for.
  bool waits_for_pool() const noexcept;
  // So many pages more should come back from whoever holds the blocks; pressure(): in blocks.
  void set_pressure(Pages pages) noexcept;
  std::uint64_t pressure() const noexcept { return pressure_.load(std::memory_order_relaxed); }
  // pressure() in memory, for readers without std::atomic; lasts as long as the cache.
  const std::uint64_t* pressure_word() const noexcept {
    static_assert(sizeof(pressure_) == sizeof(std::uint64_t));
    return reinterpret_cast<const std::uint64_t*>(&pressure_);
  }
  // Called by set_pressure(), on its thread, when the pressure rises above what it last told. It
  // may release, ask and call this, but not wait for this cache nor end it. None: no more calls,
  // and none is under way any more in another thread.
  void on_reclaim(std::function<void(std::uint64_t)> tell) noexcept;
  // Waits until there is pressure. shortage: none came before the deadline; lost: closed, and there
  // will be none.
  Result wait_pressure(Instant deadline) noexcept;
  // Pages of acquired blocks that their holder says it does not use; none where it says nothing.
  Pages unused_pages() const noexcept;
  // The pool has room that it did not have before: worth trying again at once.
  void pool_changed() noexcept;

  Work work() noexcept override;
  void close() noexcept override;
  bool finished() const noexcept override;
  bool closed() const noexcept;

  // Makes no driver call, but looks at every piece: not for hot paths. Throws std::bad_alloc.
  CacheStats stats() const;
  // The stripes in order of blocks; the same for the cache's life.
  std::span<const BlockRange> stripes() const noexcept { return plan_.stripes(); }
  driver::ContextId context() const noexcept { return buffers_.front()->context(); }
  driver::DeviceId device() const noexcept { return buffers_.front()->device(); }

 private:
  enum class State : std::uint8_t { scratch, growing, ready, draining, releasing, lost };
  // What it was backed for: nobody yet, somebody who waits, or blocks have been taken since.
  enum class Made : std::uint8_t { ahead, late, used };
  struct Stripe {
    State state = State::scratch;
    std::uint64_t live = 0;    // pinned ones included
    std::uint64_t pinned = 0;  // of the stripe's blocks
    Made made = Made::used;
    Fences::Ticket ticket = 0;  // draining: may go when it has passed
  };
  enum class Growth : std::uint8_t { grown, refused, exhausted, lost };
  enum class Named : std::uint8_t { taken, refused, late, not_free, lost };
  static constexpr Duration kAskLapses = std::chrono::seconds(1);
  static constexpr std::uint64_t kUntold = ~std::uint64_t{0};

  // cache.cpp: life.
  Cache(const CacheRequest& request, StripePlan plan, Waker& waker, const Clock& clock);
  Result start(const std::shared_ptr<Cache>& self, std::span<const BlockRange> pinned);
  Result repartition_all() noexcept;
  // Backs what is in pinned_. `backed`: empty, with room for all stripes.
  Result pin(std::vector<std::size_t>& backed) noexcept;
  void unclaim_all() noexcept;
  void drop_wish() noexcept;

  // blocks.cpp: all with mutex_ held.
  std::uint64_t free_of(std::size_t stripe) const noexcept;
  void change(std::size_t stripe, State state, std::uint64_t live) noexcept;
  void place(std::size_t stripe) noexcept;
  void count_available() noexcept;
  std::uint64_t take_from(std::size_t stripe, std::uint64_t most, std::span<BlockRange> out,
                          std::size_t& used) noexcept;
  bool kept_for_others(std::size_t stripe) const noexcept;
  void score_use(std::size_t stripe) noexcept;
  bool within(BlockRange range) const noexcept;
  bool is_pinned(BlockRange range) const noexcept;
  void unlive(BlockRange range) noexcept;
  void forget_expected() noexcept;
  Pages pages_of(std::size_t stripe) const noexcept;
  std::uint64_t asked(Instant now) const noexcept;
  std::uint64_t need(Instant now) const noexcept;
  bool wake_if(bool needed) noexcept;
  void put_off_growth(Instant retry_at) noexcept;
  void may_grow() noexcept;

  // named.cpp: with `lock` on mutex_, which is let go meanwhile.
  Named take_part(std::size_t stripe, BlockRange part, Instant deadline,
                  std::unique_lock<std::mutex>& lock) noexcept;

  // work.cpp: with work_mutex_ held and mutex_ not, if not said otherwise.
  void undrain(Instant now) noexcept;  // mutex_ held
  void sample(Instant now) noexcept {  // mutex_ held
    warm_.sample(now, Blocks(live_blocks_), in_use_.load(std::memory_order_relaxed) == 0);
  }
  void drop_wish_if_met(Instant now) noexcept;
  bool grow_if_needed(Instant now) noexcept;
  Growth grow_one(Instant now) noexcept;
  // pre: it is in State::growing.
  Growth grow(std::size_t stripe, Pages wish, Instant now) noexcept;
  Growth settle_growth(std::size_t stripe, Result result, Instant retry_at) noexcept;
  Result back_stripe(std::size_t stripe, Pages wish, Duration& retry) noexcept;
  Pages wish(Instant now, std::size_t stripe) noexcept;
  bool begin_wish() noexcept;
  Result unback_stripe(std::size_t stripe) noexcept;
  bool release_one() noexcept;
  bool mark_surplus(Instant now) noexcept;
  bool fence_marked(Instant now) noexcept;
  bool number_marked(Fences::Ticket ticket) noexcept;
  bool sweep(Instant now) noexcept;
  bool finish_if_empty() noexcept;
  bool has_lost_piece(std::size_t stripe) const noexcept;
  void mark_lost_stripes() noexcept;
  void lose() noexcept;
  Work idle(Instant now) noexcept;

  const StripePlan plan_;
  const std::vector<std::shared_ptr<Buffer>> buffers_;
  Waker& waker_;
  const Clock& clock_;

  std::mutex work_mutex_;  // one worker at a time; taken before mutex_, or tried while holding it
  Fences fences_;          // guarded by work_mutex_, as the next two
  Instant fence_at_{};     // no try before
  Instant sweep_at_{};

  mutable std::mutex mutex_;  // guards all below; never held across a driver call
  std::condition_variable progress_;
  std::vector<Stripe> stripes_;
  StripeIndex index_;
  BlockSet live_;
  std::vector<BlockRange> pinned_;  // in order, apart
  WarmPolicy warm_;
  std::uint64_t live_blocks_ = 0;
  std::uint64_t free_ready_ = 0;     // free blocks of ready stripes
  std::uint64_t free_draining_ = 0;  // free blocks of draining stripes
  std::uint64_t free_vacant_ = 0;    // free blocks of ready stripes without a live one
  std::uint64_t lost_blocks_ = 0;
  std::uint64_t expected_ = 0;
  std::uint64_t asked_ = 0;     // missing at the last acquire
  Instant asked_until_{};       // when that lapses
  std::uint64_t waiting_ = 0;   // blocks that callers of wait_ready wait for
  std::uint64_t naming_ = 0;    // blocks that callers of acquire_ranges wait for
  Instant grow_at_{};           // no try to grow before: the pool or the driver refused
  Instant ahead_at_{};          // the same while nobody waits for it
  Duration ahead_pause_{};      // how long that was last
  std::uint32_t failures_ = 0;  // in a row, of the driver
  std::uint64_t refusals_ = 0;
  Pages in_use_pages_;
  Pages pressed_;             // still to be marked for others
  bool under_press_ = false;  // others wait
  bool gated_ = false;        // and are entitled to what comes free here
  bool wished_ = false;       // the pool knows that callers wait
  bool refused_ = false;      // the last try to grow was
  bool closed_ = false;
  bool lost_ = false;
  bool finished_ = false;
  Instant sleeps_until_ = Instant::max();  // what the last work() said; epoch: woken since
  std::uint64_t grows_ = 0;
  std::uint64_t releases_ = 0;
  std::uint64_t short_grants_ = 0;
  std::uint64_t warm_hits_ = 0;
  std::uint64_t warm_misses_ = 0;
  std::uint64_t warm_in_vain_ = 0;
  std::atomic<std::uint64_t> available_{0};
  std::atomic<std::uint64_t> in_use_{kUntold};
  std::atomic<std::uint64_t> pressure_{0};
  std::atomic<std::uint64_t> evicted_{0};

  // Held during the listener's call, which may come back here; taken before mutex_.
  std::recursive_mutex telling_;
  Listener<std::uint64_t> listener_;
  std::uint64_t told_ = 0;
};

}  // namespace kvcached::cache
