// Taking blocks by number: all or none, whatever the pool and the driver do, and never a block that
// somebody else has.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using std::chrono::milliseconds;
using test::Call;
using test::Rig;
using test::Shape;
using test::Status;
using test::tensors;

constexpr Bytes kBlock{64 << 10};  // 32 blocks a page
constexpr std::uint64_t kBlocks = 4'000;

class Named : public testing::Test {
 protected:
  void start(Shape shape, Pages pool = Pages(4000)) {
    rig_.emplace(std::move(shape), Pages(4096), pool);
    ASSERT_EQ(rig_->make(), Result::ok);
  }
  void SetUp() override { start(tensors(2, kBlocks, kBlock)); }

  Result take(std::vector<BlockRange> ranges, Instant deadline = Instant::max()) {
    const Result result = cache().acquire_ranges(ranges, deadline);
    if (result != Result::ok) return result;
    for (const BlockRange& range : ranges) {
      for (std::uint64_t b = range.first; b < range.end(); ++b) {
        EXPECT_FALSE(rig().marks.contains(b));
        rig().mark(b);
      }
    }
    return result;
  }
  BlockRange stripe(std::size_t number) { return cache().stripes()[number]; }
  Instant now() { return rig().clock.now(); }
  Rig& rig() { return *rig_; }
  Cache& cache() { return *rig_->cache; }

 private:
  std::optional<Rig> rig_;
};

TEST_F(Named, TheseBlocksAndNoOthersBecomeLive) {
  ASSERT_EQ(take({stripe(5), stripe(2)}), Result::ok);
  EXPECT_EQ(cache().stats().live, stripe(5).count + stripe(2).count);
  EXPECT_EQ(cache().stats().grows, 2U);
  EXPECT_EQ(cache().available(), 0U);
  rig().verify_all();
  EXPECT_TRUE(rig().exact());
  EXPECT_EQ(rig().release({stripe(2)}), Result::ok);
  EXPECT_EQ(cache().release(std::vector{stripe(2)}), Result::invalid);
  EXPECT_EQ(rig().release({stripe(5)}), Result::ok);
}

TEST_F(Named, RangesMayBeginAndEndWithinStripes) {
  const BlockRange across{stripe(1).first + 3, stripe(1).count + stripe(2).count};
  ASSERT_EQ(take({across}), Result::ok);
  EXPECT_EQ(cache().stats().live, across.count);
  EXPECT_EQ(cache().stats().grows, 3U);
  // The rest of their stripes is free, and backed.
  EXPECT_EQ(cache().available(),
            stripe(1).count + stripe(2).count + stripe(3).count - across.count);
  ASSERT_EQ(take({{stripe(1).first, 3}}, now()), Result::ok);
  rig().verify_all();
}

TEST_F(Named, WithoutWaitingOnlyWhatIsReady) {
  EXPECT_EQ(take({stripe(0)}, now()), Result::shortage);
  cache().expect(1);
  rig().work();
  EXPECT_EQ(take({stripe(0), stripe(1)}, now()), Result::shortage);
  EXPECT_EQ(cache().stats().live, 0U);
  EXPECT_EQ(cache().stats().grows, 1U);
  EXPECT_EQ(take({stripe(0)}, now()), Result::ok);
}

TEST_F(Named, WhatIsTakenOutsideOrTwiceIsInvalidAndChangesNothing) {
  Shape shape = tensors(2, kBlocks, kBlock);
  shape.pinned = {{0, 1}};
  start(shape);
  rig().mark(0);
  ASSERT_EQ(take({stripe(2)}), Result::ok);
  const std::uint64_t live = cache().stats().live;
  for (const std::vector<BlockRange>& bad :
       std::vector<std::vector<BlockRange>>{{stripe(1), stripe(2)},
                                            {stripe(1), stripe(1)},
                                            {stripe(1), {stripe(1).end() - 1, 2}},
                                            {stripe(0)},
                                            {stripe(1), {kBlocks - 1, 2}},
                                            {{~0ULL, 2}}}) {
    EXPECT_EQ(take(bad), Result::invalid);
    EXPECT_EQ(cache().stats().live, live);
  }
  EXPECT_EQ(take({{1, stripe(0).count - 1}, stripe(1), {kBlocks, 0}}), Result::ok);
  rig().verify_all();
  EXPECT_TRUE(rig().exact());
}

TEST_F(Named, ARefusalTakesNoneAndWhatWasBackedForItGoes) {
  rig().budget.set_pool(Pages(6));
  EXPECT_EQ(take({stripe(0), stripe(1), stripe(3), stripe(2)}), Result::shortage);
  EXPECT_EQ(cache().stats().live, 0U);
  EXPECT_EQ(cache().stats().short_grants, 1U);
  rig().settle();
  EXPECT_EQ(rig().budget.charged(), Pages());
  EXPECT_TRUE(rig().exact());
  ASSERT_EQ(take({stripe(0), stripe(1)}), Result::ok);
  rig().budget.set_pool(Pages(100));
  rig().clock.advance(milliseconds(10));
  ASSERT_EQ(take({stripe(3), stripe(2)}), Result::ok);
  rig().verify_all();
}

TEST_F(Named, WarmStripesMakeRoomForNamedOnes) {
  rig().budget.set_pool(Pages(18));
  ASSERT_EQ(take({stripe(4)}), Result::ok);  // 16 MiB in each tensor
  ASSERT_EQ(take({stripe(0)}), Result::ok);
  rig().release({stripe(4)});
  cache().expect(stripe(4).count);  // which keeps it
  rig().settle();
  ASSERT_GE(cache().available(), stripe(4).count);
  EXPECT_EQ(take({stripe(3), stripe(2), stripe(1)}), Result::shortage);
  rig().settle();
  ASSERT_EQ(take({stripe(3), stripe(2), stripe(1)}), Result::ok);
  rig().verify_all();
}

TEST_F(Named, WhatWasRefusedIsMissedAndComesLater) {
  rig().budget.set_pool(Pages(1));
  EXPECT_EQ(take({stripe(0)}), Result::shortage);
  EXPECT_NE(cache().stats().want, Pages());
  rig().budget.set_pool(Pages(100));
  rig().clock.advance(milliseconds(10));
  rig().work();
  ASSERT_EQ(take({stripe(0)}, now()), Result::ok);
  EXPECT_EQ(cache().stats().want, Pages());
}

TEST_F(Named, WhatOthersWaitForIsNotPutToUseAgain) {
  ASSERT_EQ(take({stripe(0), stripe(1)}), Result::ok);
  rig().release({stripe(1)});
  cache().press(Pages(100), true);
  EXPECT_EQ(take({stripe(1)}), Result::shortage);
  cache().press(Pages(), false);
  EXPECT_EQ(take({stripe(1)}), Result::ok);
}

TEST_F(Named, DrainingStripesAreTakenBack) {
  ASSERT_EQ(take({stripe(3)}), Result::ok);
  rig().release({stripe(3)});
  cache().trim();
  rig().work();  // marked, and a fence taken that has not passed
  ASSERT_EQ(take({stripe(3)}, now()), Result::ok);
  rig().driver.finish();
  rig().settle();
  EXPECT_EQ(cache().stats().live, stripe(3).count);
  rig().verify_all();
}

TEST_F(Named, AClosedCacheIsLost) {
  ASSERT_EQ(take({stripe(1)}), Result::ok);
  cache().close();
  EXPECT_EQ(cache().acquire_ranges(std::vector{stripe(2)}, Instant::max()), Result::lost);
}

// Not on page edges: stripes share pages.
Shape crooked() {
  Shape shape;
  shape.blocks = 600;
  shape.segments = {{0, Bytes(777), Bytes(73'728), Bytes(73'728)},
                    {1, Bytes(), Bytes(73'728), Bytes(73'728)}};
  shape.buffers = {Bytes(777 + 600 * 73'728), Bytes(600 * 73'728)};
  return shape;
}

TEST_F(Named, EveryDriverFailureTakesNone) {
  for (const Status status : {Status::failed, Status::out_of_memory}) {
    for (const Call call : {Call::create, Call::map, Call::unmap, Call::release}) {
      for (std::uint64_t nth = 0; nth < 24; ++nth) {
        for (const std::uint64_t more : {0U, 1U, 2U}) {
          SCOPED_TRACE(testing::Message() << "call " << static_cast<int>(call) << " number " << nth
                                          << " and " << more << " more");
          start(crooked());
          ASSERT_EQ(take({stripe(1)}), Result::ok);
          rig().driver.fail(call, nth, status, more);
          const Result result = take({stripe(0), stripe(2), stripe(3)});
          EXPECT_EQ(result == Result::ok, rig().driver.struck() == 0 || call == Call::release);
          EXPECT_EQ(cache().stats().live, rig().marks.size());
          EXPECT_TRUE(rig().overstated());
          rig().driver.fail_nothing();
          rig().settle();
          rig().verify_all();
          EXPECT_TRUE(rig().exact());
          if (result == Result::ok || cache().stats().lost_blocks != 0) continue;
          EXPECT_EQ(cache().stats().held, cache().stats().used + cache().stats().fragmented);
          EXPECT_EQ(take({stripe(0), stripe(2), stripe(3)}), Result::ok);
          rig().verify_all();
        }
      }
    }
  }
}

TEST_F(Named, ThreadsTakeDifferentBlocks) {
  start(tensors(2, kBlocks, kBlock), Pages(120));
  const std::size_t count = cache().stripes().size();
  std::vector<std::atomic<unsigned>> owner(count);
  std::atomic<std::uint64_t> taken{0};
  std::atomic<bool> stop{false};
  std::thread agent([&] {
    std::mt19937 random(9);
    while (!stop) {
      if (random() % 4 == 0) rig().driver.finish();
      if (random() % 8 == 0) rig().clock.advance(milliseconds(20));
      if (random() % 16 == 0) cache().expect(random() % 500);
      if (!cache().work().worked) std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (unsigned id = 1; id <= 6; ++id) {
    callers.emplace_back([&, id] {
      std::mt19937 random(id);
      for (int round = 0; round < 400 || (taken < 300 && round < 100'000); ++round) {
        std::array<std::size_t, 2> which{random() % count, random() % count};
        const std::array<BlockRange, 2> ranges{stripe(which[0]), stripe(which[1])};
        const Result result = cache().acquire_ranges(ranges, now() + milliseconds(random() % 3));
        if (result != Result::ok) continue;
        ++taken;
        for (const std::size_t s : which) EXPECT_EQ(owner[s].exchange(id), 0U);
        for (const std::size_t s : which) EXPECT_EQ(owner[s].exchange(0), id);
        EXPECT_EQ(cache().release(ranges), Result::ok);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  stop = true;
  agent.join();
  EXPECT_GE(taken, 300U);
  EXPECT_EQ(cache().stats().live, 0U);
  cache().trim();
  rig().settle();
  EXPECT_TRUE(rig().exact());
}

}  // namespace
}  // namespace kvcached::cache
