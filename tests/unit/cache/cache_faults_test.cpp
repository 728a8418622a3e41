// Every driver call fails in turn, in growth and in release: no block is ever handed out without
// its pages, the books match what the driver holds, and the cache goes on.
#include <gtest/gtest.h>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using test::Call;
using test::Rig;
using test::Shape;
using test::Status;

// Three tensors, two of them in one buffer and not on page edges: stripes share pages.
Shape crooked() {
  constexpr std::uint64_t kStride = 73'728;
  constexpr std::uint64_t kBlocks = 600;
  Shape shape;
  shape.blocks = kBlocks;
  shape.segments = {{0, Bytes(777), Bytes(kStride), Bytes(kStride)},
                    {0, Bytes(777 + kBlocks * kStride), Bytes(kStride), Bytes(kStride)},
                    {1, Bytes(), Bytes(kStride), Bytes(kStride)}};
  shape.buffers = {Bytes(777 + 2 * kBlocks * kStride), Bytes(kBlocks * kStride)};
  return shape;
}

struct Fault {
  Call call;
  std::uint64_t nth;
  std::uint64_t more;  // further calls that fail
};

std::vector<Fault> faults() {
  std::vector<Fault> all;
  for (const Call call : {Call::create, Call::release, Call::map, Call::unmap, Call::fence,
                          Call::fence_passed, Call::synchronize}) {
    for (std::uint64_t nth = 0; nth < 20; ++nth) {
      for (const std::uint64_t more : {0U, 1U, 2U, 7U}) all.push_back({call, nth, more});
    }
  }
  return all;
}

class CacheFaults : public testing::TestWithParam<Status> {};

TEST_P(CacheFaults, InGrowth) {
  for (const Fault& fault : faults()) {
    SCOPED_TRACE(testing::Message() << "call " << static_cast<int>(fault.call) << " number "
                                    << fault.nth << " and " << fault.more << " more");
    Rig rig(crooked());
    ASSERT_EQ(rig.make(), Result::ok);
    rig.grow(20);
    rig.driver.fail(fault.call, fault.nth, GetParam(), fault.more);
    const CacheStats before = rig.cache->stats();
    rig.cache->expect(60);
    rig.work();
    rig.verify_all();
    EXPECT_TRUE(rig.overstated());
    const CacheStats after = rig.cache->stats();
    if (rig.driver.struck() != 0 && after.grows == before.grows && after.lost_blocks == 0) {
      EXPECT_EQ(after.ready, before.ready);
    }
    rig.driver.fail_nothing();
    rig.clock.advance(std::chrono::seconds(3));
    rig.work();
    // All but what was lost can be had after all.
    rig.cache->expect(600);
    rig.work();
    EXPECT_EQ(rig.cache->available() + 20, 600 - rig.cache->stats().lost_blocks);
    rig.acquire(600);
    rig.verify_all();
    EXPECT_TRUE(rig.exact());
    if (fault.more == 0) {
      EXPECT_EQ(rig.cache->stats().lost_blocks, 0U);
    }
  }
}

TEST_P(CacheFaults, InRelease) {
  for (const Fault& fault : faults()) {
    SCOPED_TRACE(testing::Message() << "call " << static_cast<int>(fault.call) << " number "
                                    << fault.nth << " and " << fault.more << " more");
    Rig rig(crooked());
    ASSERT_EQ(rig.make(), Result::ok);
    const auto kept = rig.grow(5);
    std::vector<BlockRange> freed = rig.grow(400);
    ASSERT_EQ(rig.release(freed), Result::ok);
    rig.cache->trim();
    rig.driver.fail(fault.call, fault.nth, GetParam(), fault.more);
    rig.work();
    rig.driver.finish();
    rig.work();
    rig.verify_all();
    EXPECT_TRUE(rig.overstated());
    EXPECT_EQ(rig.driver.violations(), 0U);
    rig.driver.fail_nothing();
    rig.settle();
    rig.verify_all();
    EXPECT_TRUE(rig.exact());
    const CacheStats stats = rig.cache->stats();
    EXPECT_EQ(stats.live, 5U);
    EXPECT_EQ(stats.held, stats.used + stats.fragmented);  // what could not go went later
    if (fault.more == 0) {
      EXPECT_EQ(stats.lost_blocks, 0U);
    }
    rig.cache->expect(600);
    rig.work();
    EXPECT_EQ(rig.cache->available() + 5, 600 - stats.lost_blocks);
    rig.acquire(600);
    rig.verify_all();
  }
}

// And at the end nothing is left of it, whatever failed before.
TEST_P(CacheFaults, ThenDestroyLeavesNothing) {
  for (const Fault& fault : faults()) {
    SCOPED_TRACE(testing::Message() << "call " << static_cast<int>(fault.call) << " number "
                                    << fault.nth << " and " << fault.more << " more");
    Rig rig(crooked());
    ASSERT_EQ(rig.make(), Result::ok);
    rig.driver.fail(fault.call, fault.nth, GetParam(), fault.more);
    rig.cache->expect(100);
    rig.work();
    rig.cache->trim();
    rig.work();
    rig.driver.fail_nothing();
    for (const auto& buffer : rig.buffers) ASSERT_EQ(buffer->destroy(), Result::ok);
    rig.work();
    EXPECT_TRUE(rig.cache->finished());
    rig.cache.reset();
    rig.buffers.clear();
    EXPECT_TRUE(rig.clean());
  }
}

INSTANTIATE_TEST_SUITE_P(Statuses, CacheFaults,
                         testing::Values(Status::failed, Status::out_of_memory));

TEST(CacheLost, LostStripesAreNeverAllocatableAgain) {
  Rig rig(crooked());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.driver.fail(Call::map, 0, Status::failed, 1);  // the extent, and the alias after it
  rig.cache->expect(10);
  rig.work();
  const CacheStats stats = rig.cache->stats();
  EXPECT_EQ(stats.lost_blocks, rig.cache->stripes()[0].count);
  rig.clock.advance(std::chrono::seconds(3));
  rig.cache->expect(600);
  rig.work();
  for (const BlockRange& range : rig.acquire(600)) {
    EXPECT_GE(range.first, rig.cache->stripes()[0].end());
  }
  rig.verify_all();
  EXPECT_TRUE(rig.exact());
}

TEST(CacheLost, ALostPageThatTwoStripesShareLosesBoth) {
  Rig rig(crooked());
  ASSERT_EQ(rig.make(), Result::ok);
  rig.grow(1);
  const auto stripes = rig.cache->stripes();
  // The first page of the second stripe is the first one's last, and backed. So the first stripe
  // goes first, and fails to put the alias back.
  ASSERT_EQ(rig.release({{0, 1}}), Result::ok);
  rig.cache->trim();
  rig.work();
  rig.driver.finish();
  rig.driver.fail(Call::map, 2, Status::failed, 1);
  rig.work();
  const CacheStats stats = rig.cache->stats();
  EXPECT_GE(stats.lost_blocks, stripes[0].count);
  rig.driver.fail_nothing();
  rig.clock.advance(std::chrono::seconds(3));
  rig.cache->expect(600);
  rig.work();
  EXPECT_EQ(rig.cache->available(), 600 - rig.cache->stats().lost_blocks);
  rig.acquire(600);
  rig.verify_all();
  EXPECT_TRUE(rig.exact());
}

}  // namespace
}  // namespace kvcached::cache
