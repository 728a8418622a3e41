// A cache that nobody waits for: how seldom it looks, and what its warm stripes were good for.
#include <gtest/gtest.h>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Shape;
using test::tensors;

class CacheRest : public test::RigTest {};

TEST_F(CacheRest, TheScoreOfWarmStripes) {
  rig().acquire(10);  // finds nothing: the stripe comes because it is asked for
  rig().work();
  rig().acquire(10);
  CacheStats stats = cache().stats();
  EXPECT_EQ(stats.warm_misses, 1U);
  EXPECT_EQ(stats.warm_hits, 0U) << "a miss is not a hit when it is there at last";
  const std::uint64_t ready = stats.ready;
  cache().expect(ready + 1);  // a stripe ahead
  rig().work();
  rig().acquire(ready + 1);
  rig().work();
  stats = cache().stats();
  EXPECT_EQ(stats.warm_hits, 1U);
  EXPECT_EQ(stats.warm_misses, 1U);
  EXPECT_EQ(stats.warm_in_vain, 0U);

  cache().expect(stats.ready + 1);  // and one that nobody takes
  rig().work();
  const std::uint64_t grows = cache().stats().grows;
  cache().trim();
  rig().work();
  rig().driver.finish();
  rig().work();
  stats = cache().stats();
  EXPECT_EQ(stats.warm_in_vain, grows - 2);
  EXPECT_EQ(stats.warm_in_vain, stats.releases);
  EXPECT_GE(stats.warm_in_vain, 1U);
  // What was used and kept warm after that is no waste.
  ASSERT_EQ(cache().release({{{0, 10}}}), Result::ok);
  EXPECT_EQ(cache().stats().warm_in_vain, stats.warm_in_vain);
}

TEST_F(CacheRest, WhatItsHolderDoesNotUseIsKnownOnceItIsTold) {
  start([] {
    Shape shape = tensors(2, 4'000, kBlock);
    shape.pinned = {{0, 1}};
    return shape;
  }());
  cache().expect(320);
  rig().work();
  rig().acquire(320);
  ASSERT_EQ(rig().last.blocks, 320U);
  EXPECT_EQ(cache().unused_pages(), Pages(0)) << "nothing was said";
  cache().in_use(160);
  EXPECT_EQ(cache().unused_pages(), Pages(10)) << "160 blocks of 2 x 64 KiB";
  cache().in_use(320);
  EXPECT_EQ(cache().unused_pages(), Pages(0));
  EXPECT_GT(cache().stats().pinned, Pages(0));
  EXPECT_LT(cache().stats().pinned, cache().stats().all);
  cache().evicted(3);
  cache().evicted(4);
  EXPECT_EQ(cache().stats().evicted, 7U);
}

TEST_F(CacheRest, WhatIsOnlyExpectedIsAskedForMoreAndMoreSeldom) {
  rig().acquire(10);
  rig().work();
  rig().budget.set_pool(rig().budget.charged());
  cache().expect(500);
  Duration pause{};
  for (int i = 0; i < 12; ++i) {
    rig().work();
    const Duration next = cache().work().next - rig().clock.now();
    EXPECT_GE(next, pause);
    pause = next;
    rig().clock.advance(next);
  }
  EXPECT_EQ(pause, seconds(1));
  EXPECT_EQ(cache().stats().short_grants, 1U);
  // Who waits for it is served soon.
  rig().work();
  rig().budget.set_pool(Pages(4000));
  rig().acquire(100);
  EXPECT_EQ(cache().available(), 0U);
  rig().clock.advance(milliseconds(5));
  rig().work();
  EXPECT_GE(cache().available(), 64U);
}

TEST_F(CacheRest, WhatStaysWarmNeedsNoLook) {
  cache().expect(100);
  rig().work();
  ASSERT_GT(cache().stats().warm, Pages(0));
  EXPECT_EQ(cache().work().next, Instant::max());
  const auto taken = rig().acquire(100);
  rig().work();
  cache().expect(0);
  ASSERT_EQ(rig().release(taken), Result::ok);
  rig().work();
  rig().driver.finish();
  rig().work();
  ASSERT_GT(cache().stats().warm, Pages(0));
  EXPECT_EQ(cache().work().next, rig().clock.now() + milliseconds(100)) << "it decays";
}

// Nobody comes by any more: the agent finds caches by their buffers.
TEST_F(CacheRest, AFreedCacheWishesForNothing) {
  start(tensors(1, 4'096, kBlock), Pages(4096), Pages(20));
  cache().wait_ready(2'000, rig().clock.now(), Patience::pool);
  rig().acquire(2'000);
  rig().work();
  ASSERT_NE(rig().budget.wish(), Pages());
  ASSERT_EQ(rig().buffers[0]->destroy(), Result::ok);
  EXPECT_EQ(rig().budget.wish(), Pages());
}

TEST_F(CacheRest, ACacheThatIsClosedWhileItIsRefusedWishesForNothing) {
  start(tensors(1, 4'096, kBlock), Pages(4096), Pages(20));
  rig().acquire(2'000);
  rig().budget.on_refusal = [&] { cache().close(); };
  while (rig().budget.refusals() == 0) ASSERT_TRUE(cache().work().worked || cache().closed());
  EXPECT_EQ(rig().budget.wish(), Pages());
}

TEST_F(CacheRest, ACacheThatCannotBeginWishesForNothing) {
  Shape shape = tensors(1, 4'096, kBlock);
  shape.pinned = {{0, 2'000}};
  test::Rig short_of_memory(shape, Pages(4096), Pages(20));
  EXPECT_EQ(short_of_memory.make(), Result::shortage);
  EXPECT_EQ(short_of_memory.budget.wish(), Pages());
}

}  // namespace
}  // namespace kvcached::cache
