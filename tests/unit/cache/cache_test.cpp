// A cache as its caller sees it: blocks come, go and are refused.
#include "shim/cache/cache.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <thread>

#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using test::Call;
using test::kMiB;
using test::Rig;
using test::Shape;
using test::Status;
using test::tensors;

constexpr Bytes kBlock{64 << 10};  // 32 blocks a page

// Two tensors of 4,000 blocks: stripes of 32, 32, 64, 128, … blocks.
Shape two() { return tensors(2, 4'000, kBlock); }

TEST(CacheCreate, HoldsNothingAtFirst) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  const CacheStats stats = rig.cache->stats();
  EXPECT_EQ(stats.blocks, 4'000U);
  EXPECT_EQ(stats.ready, 0U);
  EXPECT_EQ(stats.held, Pages());
  EXPECT_EQ(stats.stripes, rig.cache->stripes().size());
  EXPECT_EQ(rig.cache->available(), 0U);
  EXPECT_FALSE(rig.cache->work().worked);
  EXPECT_TRUE(rig.exact());
}

TEST(CacheCreate, PinnedBlocksAreBackedAndNobodysElse) {
  Shape shape = two();
  shape.pinned = {{0, 1}, {3'998, 2}};
  Rig rig(shape);
  ASSERT_EQ(rig.make(), Result::ok);
  EXPECT_EQ(rig.cache->stats().live, 3U);
  for (const std::uint64_t b : {0U, 3'998U, 3'999U}) rig.mark(b);
  const std::vector<BlockRange> pinned = {{3'999, 1}};
  EXPECT_EQ(rig.cache->release(pinned), Result::invalid);
  rig.grow(3'000);  // none of the pinned among them, or Rig complains
  rig.cache->trim();
  rig.settle();
  rig.verify_all();
  EXPECT_TRUE(rig.exact());
}

TEST(CacheCreate, RefusesWhatIsNotItsOwn) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  const auto first = rig.cache;
  EXPECT_EQ(rig.make(), Result::invalid);  // claimed already

  Rig other(two());
  other.buffers[1]->back_whole();
  EXPECT_EQ(other.make(), Result::invalid);
  EXPECT_EQ(other.buffers[0]->use(), Use::unclaimed);

  Shape outside = two();
  outside.blocks = 4'001;
  Rig third(outside);
  EXPECT_EQ(third.make(), Result::invalid);
}

TEST(CacheCreate, WaitsForTheEndOfACapture) {
  Rig rig(two());
  rig.driver.set_capture(true);
  EXPECT_EQ(rig.make(), Result::not_now);
  EXPECT_EQ(rig.buffers[0]->use(), Use::unclaimed);
  rig.driver.set_capture(false);
  EXPECT_EQ(rig.make(), Result::ok);
}

// The engine's fill runs over all of it when the cache comes, also where nothing is cut anew.
TEST(CacheCreate, WaitsForTheWorkInFlight) {
  for (const Pages capacity : {Pages(512), Pages(4096)}) {  // aliases as the stripes', and larger
    Shape shape = two();
    shape.extent = kPageSize;
    shape.pinned = {{0, 1}};
    Rig rig(shape, capacity, capacity);
    for (std::uint64_t block = 0; block < 4'000; ++block) {
      for (const Segment& segment : shape.segments) rig.driver.launch(rig.address(segment, block));
    }
    ASSERT_EQ(rig.make(), Result::ok);
    EXPECT_EQ(rig.driver.violations(), 0U);
  }
}

TEST(CacheCreate, EveryFailureLetsTheBuffersGo) {
  for (const Call call : {Call::create, Call::unmap, Call::map, Call::synchronize}) {
    for (std::uint64_t nth = 0; nth < 20; ++nth) {
      Shape shape = two();
      shape.pinned = {{0, 1}, {3'998, 2}};
      Rig rig(shape);
      rig.driver.fail(call, nth);
      const Result result = rig.make();
      EXPECT_EQ(result == Result::ok, rig.driver.struck() == 0);
      if (result != Result::ok) {
        EXPECT_EQ(rig.buffers[0]->use(), Use::unclaimed);
        EXPECT_EQ(rig.buffers[1]->use(), Use::unclaimed);
        EXPECT_EQ(rig.budget.charged(), Pages());
        EXPECT_EQ(rig.make(), Result::ok);
      }
      EXPECT_TRUE(rig.exact()) << static_cast<int>(call) << " " << nth;
    }
  }
}

TEST(CacheCreate, NoPagesForPinnedBlocksIsAShortage) {
  Shape shape = two();
  shape.pinned = {{0, 1}};
  Rig rig(shape, Pages(4096), Pages(1));
  EXPECT_EQ(rig.make(), Result::shortage);
  EXPECT_EQ(rig.buffers[0]->use(), Use::unclaimed);
  rig.budget.set_pool(Pages(4));
  EXPECT_EQ(rig.make(), Result::ok);
}

TEST(CacheAcquire, NothingIsAllocatableBeforeItIsBacked) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  EXPECT_TRUE(rig.acquire(10).empty());
  EXPECT_EQ(rig.last.result, Result::shortage);
  EXPECT_GT(rig.waker.wakes(), 0U);
  rig.work();  // the missing ones were asked for
  EXPECT_GE(rig.cache->available(), 10U);
  EXPECT_EQ(rig.acquire(10).size(), 1U);
  EXPECT_EQ(rig.last.result, Result::ok);
  EXPECT_EQ(rig.cache->stats().held, Pages(2));
  EXPECT_TRUE(rig.exact());
}

TEST(CacheAcquire, SmallStripesFirst) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(1);
  EXPECT_EQ(rig.cache->stats().held, Pages(2));
  rig.grow(40);
  EXPECT_EQ(rig.cache->stats().held, Pages(4));
}

TEST(CacheAcquire, TheFullestStripeFirst) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(64);  // stripes 0 and 1
  ASSERT_EQ(rig.release({{0, 30}, {40, 10}}), Result::ok);
  const auto ranges = rig.acquire(10);  // out of stripe 1, which is fuller
  ASSERT_EQ(ranges.size(), 1U);
  EXPECT_EQ(ranges[0], (BlockRange{40, 10}));
}

TEST(CacheAcquire, WholeStripesRoundUp) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  ASSERT_EQ(rig.cache->wait_ready(60, Instant::max(), Patience::mapping), Result::ok);
  const auto ranges = rig.acquire(33, true);
  ASSERT_EQ(ranges.size(), 1U);  // adjoining stripes are one range
  EXPECT_EQ(ranges[0], (BlockRange{0, 64}));
  EXPECT_EQ(rig.last.result, Result::ok);
}

TEST(CacheAcquire, StopsWhereTheRangesEnd) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(32);
  ASSERT_EQ(rig.release({{2, 1}, {4, 1}, {6, 1}}), Result::ok);
  EXPECT_EQ(rig.acquire(3, false, 2).size(), 2U);
  EXPECT_EQ(rig.last.result, Result::shortage);
  EXPECT_EQ(rig.last.blocks, 2U);
  EXPECT_EQ(rig.acquire(1, false, 0).size(), 0U);
  EXPECT_EQ(rig.acquire(1).size(), 1U);
}

TEST(CacheRelease, RefusesWhatIsNotLiveAndChangesNothing) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(20);
  const CacheStats before = rig.cache->stats();
  const std::vector<std::vector<BlockRange>> bad = {
      {{0, 5}, {3, 1}}, {{0, 21}}, {{19, 2}},         {{0, 5}, {4'000, 1}},    {{~0ULL, 2}},
      {{3'999, ~0ULL}}, {{25, 1}}, {{0, 20}, {0, 1}}, {{0, 4}, {5, 5}, {9, 2}}};
  for (const auto& ranges : bad) EXPECT_EQ(rig.cache->release(ranges), Result::invalid);
  const CacheStats after = rig.cache->stats();
  EXPECT_EQ(after.live, before.live);
  EXPECT_EQ(after.ready, before.ready);
  EXPECT_EQ(rig.release({{0, 20}}), Result::ok);  // all still live until now
  EXPECT_EQ(rig.cache->release(std::vector<BlockRange>{{0, 1}}), Result::invalid);
}

TEST(CacheRelease, EmptyRangesAreNothing) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(20);
  EXPECT_EQ(rig.release({{7, 0}, {4'000, 0}}), Result::ok);
  EXPECT_EQ(rig.cache->stats().live, 20U);
}

TEST(CacheRelease, FreedBlocksComeBackAtOnce) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(100);
  ASSERT_EQ(rig.release({{0, 100}}), Result::ok);
  const std::uint64_t creates = rig.driver.calls(Call::create);
  rig.acquire(100);
  EXPECT_EQ(rig.last.blocks, 100U);
  EXPECT_EQ(rig.driver.calls(Call::create), creates);
}

TEST(CacheWait, GrowsOnTheCallersThread) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  EXPECT_EQ(rig.cache->wait_ready(1'000, Instant::max(), Patience::mapping), Result::ok);
  EXPECT_GE(rig.cache->available(), 1'000U);
  EXPECT_EQ(rig.cache->stats().want, Pages());
}

TEST(CacheWait, ARefusalEndsItWithoutPatience) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.budget.set_pool(Pages(10));
  EXPECT_EQ(rig.cache->wait_ready(1'000, Instant::max(), Patience::mapping), Result::shortage);
  EXPECT_EQ(rig.cache->available(), 128U);  // 2 + 2 + 4 pages
  EXPECT_EQ(rig.cache->stats().short_grants, 1U);
  // Again at once: not even asked.
  const std::uint64_t charges = rig.budget.charges();
  EXPECT_EQ(rig.cache->wait_ready(1'000, Instant::max(), Patience::mapping), Result::shortage);
  EXPECT_EQ(rig.budget.charges(), charges);
  rig.budget.set_pool(Pages(4'000));
  rig.clock.advance(std::chrono::milliseconds(10));
  EXPECT_EQ(rig.cache->wait_ready(1'000, Instant::max(), Patience::mapping), Result::ok);
}

TEST(CacheWait, MoreThanThereIsIsShortAtOnce) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  EXPECT_EQ(rig.cache->wait_ready(4'001, Instant::max(), Patience::pool), Result::shortage);
  rig.grow(4'000);
  EXPECT_EQ(rig.cache->wait_ready(1, Instant::max(), Patience::mapping), Result::shortage);
}

TEST(CacheWait, TheDeadlineEndsIt) {
  Rig rig(two(), Pages(4096), Pages(1));
  ASSERT_EQ(rig.make(), Result::ok);
  EXPECT_EQ(rig.cache->wait_ready(1, rig.clock.now(), Patience::pool), Result::shortage);
  EXPECT_EQ(rig.budget.charges(), 0U);
}

TEST(CacheWait, APatientCallerGetsWhatAnotherReturns) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(4'000);
  std::thread waiter(
      [&] { EXPECT_EQ(rig.cache->wait_ready(500, Instant::max(), Patience::pool), Result::ok); });
  while (rig.cache->stats().want == Pages()) std::this_thread::yield();
  EXPECT_EQ(rig.release({{0, 500}}), Result::ok);
  waiter.join();
}

TEST(CacheWait, ClosingWakesAWaiter) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(4'000);
  std::thread waiter(
      [&] { EXPECT_EQ(rig.cache->wait_ready(500, Instant::max(), Patience::pool), Result::lost); });
  while (rig.cache->stats().want == Pages()) std::this_thread::yield();
  rig.cache->close();
  waiter.join();
}

TEST(CacheStatsTest, SharedPagesCountOnce) {
  Shape shape;  // both tensors in one buffer, nothing on page edges
  shape.blocks = 1'000;
  shape.segments = {{0, Bytes(100), Bytes(50'003), Bytes(50'003)},
                    {0, Bytes(100 + 50'003'000), Bytes(50'003), Bytes(50'003)}};
  shape.buffers = {Bytes(100 + 2 * 50'003'000)};
  Rig rig(shape);
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(1'000);
  const CacheStats stats = rig.cache->stats();
  EXPECT_EQ(stats.held, pages_up(shape.buffers[0]));
  EXPECT_EQ(stats.used, stats.held);
  EXPECT_EQ(stats.warm, Pages());
  EXPECT_EQ(stats.live, 1'000U);
  rig.verify_all();
  EXPECT_TRUE(rig.exact());

  // Stripes with a live block, the page between two of them once.
  ASSERT_EQ(rig.release({{600, 400}}), Result::ok);
  std::set<std::uint64_t> pages;
  for (const BlockRange& stripe : rig.cache->stripes()) {
    if (stripe.first >= 600) continue;
    for (const Segment& s : shape.segments) {
      const std::uint64_t begin = s.offset.value + stripe.first * s.stride.value;
      const std::uint64_t end = s.offset.value + stripe.end() * s.stride.value;
      for (std::uint64_t page = begin / kPageSize.value; page * kPageSize.value < end; ++page) {
        pages.insert(page);
      }
    }
  }
  const CacheStats after = rig.cache->stats();
  EXPECT_EQ(after.used + after.fragmented, Pages(pages.size()));
  EXPECT_EQ(after.used, pages_up(Bytes(2 * 50'003) * 600));
  EXPECT_EQ(after.warm, stats.held - Pages(pages.size()));
}

// What cannot go because of a few live blocks, whether the cache or its caller knows which.
TEST(CacheStatsTest, BackedBesideLiveBlocksIsFragmented) {
  Rig rig(two());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(64);  // two stripes of 32 blocks, a page in each tensor
  EXPECT_EQ(rig.cache->stats().fragmented, Pages());
  ASSERT_EQ(rig.release({{16, 32}}), Result::ok);
  EXPECT_EQ(rig.cache->stats().used, Pages(2));
  EXPECT_EQ(rig.cache->stats().fragmented, Pages(2));
  rig.cache->in_use(16);
  EXPECT_EQ(rig.cache->stats().used, Pages(1));
  EXPECT_EQ(rig.cache->stats().fragmented, Pages(3));
  rig.cache->in_use(1'000'000);  // more than it has
  EXPECT_EQ(rig.cache->stats().used, Pages(2));
}

}  // namespace
}  // namespace kvcached::cache
