#include "shim/cache/ranges.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/unit/cache/fakes.hpp"

namespace kvcached::cache {
namespace {

using test::Call;
using test::kMiB;
using test::Status;
using test::World;

// 1 GiB less a bit in extents of 16 MiB.
class RangesTest : public testing::Test {
 protected:
  explicit RangesTest(Pages pool = Pages(2000)) : world_(Pages(2048), pool) {}
  void SetUp() override {
    buffer_ = world_.buffer(kMiB * 1023);
    ASSERT_EQ(Ranges::of(buffer_, world_.waker, world_.clock, ranges_), Result::ok);
  }
  // The buffer and its ranges own each other until the buffer is destroyed.
  void TearDown() override {
    world_.driver.set_capture(false);
    buffer_->destroy();
  }
  Bytes resident(Bytes offset, Bytes bytes) {
    Bytes out;
    EXPECT_EQ(ranges_->resident(offset, bytes, out), Result::ok);
    return out;
  }
  Bytes resident() { return resident({}, buffer_->requested()); }
  void work() {
    while (ranges_->work().worked) {
    }
  }
  driver::Address at(Bytes offset) const { return buffer_->base() + offset.value; }

  World world_;
  std::shared_ptr<Buffer> buffer_;
  std::shared_ptr<Ranges> ranges_;
};

TEST_F(RangesTest, ABufferHasOneRanges) {
  std::shared_ptr<Ranges> again;
  ASSERT_EQ(Ranges::of(buffer_, world_.waker, world_.clock, again), Result::ok);
  EXPECT_EQ(again, ranges_);
  EXPECT_EQ(resident(), Bytes());
}

TEST_F(RangesTest, NeedsABufferThatIsNobodyElses) {
  const auto whole = world_.buffer(kMiB * 4);
  ASSERT_EQ(whole->back_whole(), Result::ok);
  std::shared_ptr<Ranges> none;
  EXPECT_EQ(Ranges::of(whole, world_.waker, world_.clock, none), Result::invalid);
  ASSERT_EQ(whole->destroy(), Result::ok);
  EXPECT_EQ(Ranges::of(whole, world_.waker, world_.clock, none), Result::lost);

  const auto captured = world_.buffer(kMiB * 256);
  world_.driver.set_capture(true);
  EXPECT_EQ(Ranges::of(captured, world_.waker, world_.clock, none), Result::not_now);
  EXPECT_EQ(captured->use(), Use::unclaimed);
  EXPECT_EQ(none, nullptr);
}

TEST_F(RangesTest, GrowBacksWholeExtentsOnce) {
  ASSERT_EQ(ranges_->grow(kMiB * 20, kMiB), Result::ok);
  EXPECT_EQ(resident(), kMiB * 16);
  EXPECT_EQ(resident(kMiB * 16, kMiB * 16), kMiB * 16);
  EXPECT_EQ(resident(kMiB * 30, kMiB * 16), kMiB * 2);
  ASSERT_EQ(ranges_->grow(kMiB * 15, kMiB * 2), Result::ok);  // both neighbours of the edge
  EXPECT_EQ(resident(), kMiB * 32);
  EXPECT_EQ(ranges_->grows(), 2U);
  EXPECT_EQ(buffer_->held(), Pages(16));
  EXPECT_TRUE(world_.exact());
}

TEST_F(RangesTest, WhatIsThereNeedsNoWordOfThePool) {
  ASSERT_EQ(ranges_->grow(kMiB * 20, kMiB), Result::ok);
  const std::uint64_t charges = world_.budget.charges();
  ASSERT_EQ(ranges_->grow(kMiB * 20, kMiB), Result::ok);
  EXPECT_EQ(world_.budget.charges(), charges);
}

TEST_F(RangesTest, TheLastPageIsGrownAndShrunkToo) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 1023), Result::ok);
  EXPECT_EQ(resident(), kMiB * 1023);
  EXPECT_EQ(buffer_->held(), Pages(512));
  ASSERT_EQ(ranges_->shrink({}, kMiB * 1023), Result::ok);
  work();
  EXPECT_EQ(buffer_->held(), Pages());
}

TEST_F(RangesTest, RefusesWhatLiesOutside) {
  EXPECT_EQ(ranges_->grow({}, kMiB * 1024), Result::invalid);
  EXPECT_EQ(ranges_->grow(kMiB * 1024, kMiB), Result::invalid);
  EXPECT_EQ(ranges_->grow(kMiB, Bytes::max()), Result::invalid);
  EXPECT_EQ(ranges_->shrink(kMiB * 1023, Bytes(1)), Result::invalid);
  Bytes out;
  EXPECT_EQ(ranges_->resident(Bytes::max(), kMiB, out), Result::invalid);
  EXPECT_EQ(ranges_->grow(kMiB * 1023, Bytes()), Result::ok);  // nothing, at the end
  EXPECT_EQ(ranges_->shrink(kMiB * 4, Bytes()), Result::ok);
  EXPECT_EQ(buffer_->held(), Pages());
}

TEST_F(RangesTest, ShrinkLeavesWhatIsOnlyTouched) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 64), Result::ok);
  ASSERT_EQ(ranges_->shrink(kMiB * 1, kMiB * 46), Result::ok);  // wholly inside: the second
  EXPECT_EQ(resident(), kMiB * 48);
  EXPECT_EQ(resident(kMiB * 16, kMiB * 16), Bytes());
  ASSERT_EQ(ranges_->shrink(kMiB * 33, kMiB * 3), Result::ok);  // none
  EXPECT_EQ(resident(), kMiB * 48);
}

TEST(RangesClaim, WaitsForTheWorkInFlight) {
  for (const Pages capacity : {Pages(512), Pages(4096)}) {  // aliases as the extents, and larger
    World world(capacity, capacity);
    const auto buffer = world.buffer(kMiB * 64);
    for (Bytes at; at < kMiB * 64; at += kMiB) world.driver.launch(buffer->base() + at.value);
    std::shared_ptr<Ranges> ranges;
    ASSERT_EQ(Ranges::of(buffer, world.waker, world.clock, ranges), Result::ok);
    EXPECT_EQ(ranges->grow({}, kMiB), Result::ok);
    EXPECT_EQ(world.driver.violations(), 0U);
    buffer->destroy();
  }
}

TEST_F(RangesTest, ShrunkExtentsGoBehindAFence) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 64), Result::ok);
  world_.driver.launch(at(kMiB * 20));
  const std::uint64_t wakes = world_.waker.wakes();
  ASSERT_EQ(ranges_->shrink({}, kMiB * 64), Result::ok);
  EXPECT_GT(world_.waker.wakes(), wakes);
  work();
  EXPECT_EQ(buffer_->held(), Pages(32));
  EXPECT_LT(ranges_->work().next, world_.clock.now() + std::chrono::milliseconds(10));
  world_.driver.finish();
  work();
  EXPECT_EQ(buffer_->held(), Pages());
  EXPECT_EQ(ranges_->releases(), 4U);
  EXPECT_EQ(world_.driver.violations(), 0U);
  EXPECT_TRUE(world_.exact());
  EXPECT_EQ(ranges_->work().next, Instant::max());
}

TEST_F(RangesTest, WhatComesBackIsZero) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);
  world_.driver.poke(at(kMiB), 42);
  world_.driver.launch(at(kMiB));
  ASSERT_EQ(ranges_->shrink({}, kMiB * 16), Result::ok);
  ASSERT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);  // before it has left
  EXPECT_EQ(world_.driver.peek(at(kMiB)), 0U);
  EXPECT_EQ(world_.driver.violations(), 0U);
  EXPECT_EQ(resident(), kMiB * 16);
  EXPECT_TRUE(world_.exact());
}

TEST_F(RangesTest, ACaptureDelaysLeaving) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 32), Result::ok);
  world_.driver.set_capture(true);
  ASSERT_EQ(ranges_->shrink({}, kMiB * 16), Result::ok);
  work();
  EXPECT_EQ(buffer_->held(), Pages(16));
  EXPECT_EQ(ranges_->grow({}, kMiB * 16), Result::not_now);  // it would have to leave first
  EXPECT_EQ(ranges_->grow(kMiB * 64, kMiB * 16), Result::ok);
  world_.driver.set_capture(false);
  world_.clock.advance(std::chrono::milliseconds(2));
  work();
  EXPECT_EQ(buffer_->held(), Pages(16));
  EXPECT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);
}

class SmallPool : public RangesTest {
 protected:
  SmallPool() : RangesTest(Pages(20)) {}
};

TEST_F(SmallPool, GrowIsAllOrNothing) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);
  EXPECT_EQ(ranges_->grow(kMiB * 16, kMiB * 32), Result::shortage);
  EXPECT_EQ(resident(), kMiB * 16);
  EXPECT_EQ(ranges_->short_grants(), 1U);
  EXPECT_TRUE(world_.exact());
  EXPECT_EQ(ranges_->grow({}, kMiB * 32), Result::ok);
}

TEST_F(RangesTest, EveryFailureInGrowthRestores) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);
  for (const Call call : {Call::create, Call::unmap, Call::map}) {
    for (std::uint64_t nth = 0; nth < 20; ++nth) {
      const std::uint64_t struck = world_.driver.struck();
      world_.driver.fail(call, nth);
      const Result result = ranges_->grow(kMiB * 16, kMiB * 256);
      world_.driver.fail_nothing();
      if (world_.driver.struck() != struck) {
        EXPECT_EQ(result, Result::failed);
        EXPECT_EQ(resident(), kMiB * 16);
      } else {
        EXPECT_EQ(result, Result::ok);
        ASSERT_EQ(ranges_->shrink(kMiB * 16, kMiB * 256), Result::ok);
        work();
      }
      EXPECT_EQ(buffer_->held(), Pages(8));
      EXPECT_TRUE(world_.exact()) << static_cast<int>(call) << " " << nth;
    }
  }
}

TEST_F(RangesTest, FailuresInReleaseAreMadeUpFor) {
  for (const Call call : {Call::unmap, Call::map, Call::release, Call::fence, Call::fence_passed}) {
    for (std::uint64_t nth = 0; nth < 6; ++nth) {
      ASSERT_EQ(ranges_->grow({}, kMiB * 64), Result::ok);
      world_.driver.launch(at(kMiB));
      ASSERT_EQ(ranges_->shrink({}, kMiB * 64), Result::ok);
      world_.driver.fail(call, nth);
      for (int i = 0; i < 5; ++i) {
        work();
        EXPECT_TRUE(world_.exact());
        world_.driver.finish();
        world_.clock.advance(std::chrono::milliseconds(60));
      }
      world_.driver.fail_nothing();
      EXPECT_EQ(buffer_->held(), Pages()) << static_cast<int>(call) << " " << nth;
    }
  }
  EXPECT_EQ(world_.driver.violations(), 0U);
}

TEST_F(RangesTest, OldContentsThatCouldNotLeaveAreNotHandedOut) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);
  world_.driver.poke(at(kMiB), 42);
  ASSERT_EQ(ranges_->shrink({}, kMiB * 16), Result::ok);
  world_.driver.fail(Call::unmap, 0);
  EXPECT_EQ(ranges_->grow({}, kMiB * 16), Result::failed);
  EXPECT_EQ(ranges_->grow({}, kMiB * 16), Result::failed);
  world_.clock.advance(std::chrono::milliseconds(60));
  work();  // goes at last
  ASSERT_EQ(ranges_->grow({}, kMiB * 16), Result::ok);
  EXPECT_EQ(world_.driver.peek(at(kMiB)), 0U);
}

TEST_F(RangesTest, ClosingReturnsEverything) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 64), Result::ok);
  ranges_->close();
  EXPECT_EQ(ranges_->grow({}, kMiB), Result::lost);
  EXPECT_EQ(ranges_->shrink({}, kMiB), Result::lost);
  work();
  EXPECT_TRUE(ranges_->finished());
  EXPECT_EQ(buffer_->held(), Pages());
  EXPECT_EQ(buffer_->use(), Use::unclaimed);
  ASSERT_EQ(Ranges::of(buffer_, world_.waker, world_.clock, ranges_), Result::ok);
  EXPECT_EQ(ranges_->grow({}, kMiB), Result::ok);
}

TEST_F(RangesTest, FreeingTheBufferEndsThem) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 64), Result::ok);
  ASSERT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_EQ(ranges_->grow({}, kMiB), Result::lost);
  work();
  EXPECT_TRUE(ranges_->finished());
  EXPECT_TRUE(world_.clean());
}

TEST_F(RangesTest, ALostContextIsTold) {
  ASSERT_EQ(ranges_->grow({}, kMiB * 64), Result::ok);
  ASSERT_EQ(ranges_->shrink({}, kMiB * 64), Result::ok);
  world_.driver.set_lost();
  work();
  EXPECT_EQ(ranges_->grow({}, kMiB), Result::lost);
  EXPECT_EQ(ranges_->work().next, Instant::max());
}

TEST_F(RangesTest, ManyThreadsGrowAndShrink) {
  std::atomic<bool> stop{false};
  std::thread agent([&] {
    while (!stop) {
      world_.driver.finish();
      if (!ranges_->work().worked) std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {  // a quarter of the buffer each
      std::mt19937 random(t);
      for (std::uint64_t i = 0; i < 100; ++i) {
        const Bytes offset = kMiB * (t * 255 + random() % 200);
        const Bytes bytes = kMiB * (1 + random() % 40);
        ASSERT_EQ(ranges_->grow(offset, bytes), Result::ok);
        world_.driver.poke(at(offset), i + 1);
        EXPECT_EQ(world_.driver.peek(at(offset)), i + 1);
        ASSERT_EQ(ranges_->shrink(offset, bytes), Result::ok);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(ranges_->shrink({}, kMiB * 1023), Result::ok);
  stop = true;
  agent.join();
  work();
  EXPECT_EQ(buffer_->held(), Pages());
  EXPECT_TRUE(world_.exact());
}

}  // namespace
}  // namespace kvcached::cache
