// A cache as its agent sees it: growing ahead, keeping warm, letting go, ending.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Call;
using test::kMiB;
using test::Shape;
using test::Status;
using test::tensors;

class CacheWork : public test::RigTest {};

TEST_F(CacheWork, TellsWhenPressureRises) {
  std::vector<std::uint64_t> told;
  const auto note = [&](std::uint64_t blocks) { told.push_back(blocks); };
  cache().set_pressure(Pages(1));
  cache().on_reclaim(note);
  for (const std::uint64_t pages : {2U, 2U, 1U, 2U, 0U, 1U}) cache().set_pressure(Pages(pages));
  const std::uint64_t page = cache().pressure();
  EXPECT_EQ(told, (std::vector{2 * page, 2 * page, page}));
  cache().on_reclaim(nullptr);
  cache().set_pressure(Pages(9));
  EXPECT_EQ(told.size(), 3U);
}

TEST_F(CacheWork, WhoIsToldOfPressureMayReplaceItself) {
  std::string told;
  cache().on_reclaim([&, name = std::string("a name that needs memory of its own")](std::uint64_t) {
    cache().on_reclaim([&](std::uint64_t) { told += "; the second"; });
    told += name;
  });
  cache().set_pressure(Pages(1));
  EXPECT_EQ(told, "a name that needs memory of its own");
  cache().set_pressure(Pages(2));
  EXPECT_EQ(told, "a name that needs memory of its own; the second");
}

TEST_F(CacheWork, KeepsReadyWhatIsExpected) {
  cache().expect(100);
  EXPECT_EQ(rig().waker.wakes(), 1U);
  EXPECT_EQ(cache().available(), 0U);  // never on the caller's thread
  EXPECT_EQ(rig().driver.calls(Call::fence), 0U);
  rig().work();
  EXPECT_GE(cache().available(), 100U);
  rig().acquire(100);
  rig().work();
  EXPECT_GE(cache().available(), 100U);
  EXPECT_EQ(cache().stats().live, 100U);
}

TEST_F(CacheWork, WhatOthersWaitForGoesThoughItIsExpected) {
  cache().expect(1'000);
  rig().work();
  const Pages held = cache().stats().held;
  ASSERT_GE(held, Pages(62));
  EXPECT_GE(cache().press(Pages(20), false), Pages(20));
  rig().work();
  rig().driver.finish();
  rig().work();
  const Pages left = cache().stats().held;
  EXPECT_LE(left, held - Pages(20));
  EXPECT_GE(left, held - Pages(40)) << "more than a stripe too much";
  // As long as others wait, it does not grow for what is only expected, but for callers it does.
  cache().press(Pages(1), false);
  rig().work();
  EXPECT_LE(cache().stats().held, left);
  cache().press(Pages(), false);
  rig().work();
  EXPECT_GE(cache().available(), 1'000U);
  EXPECT_TRUE(rig().exact());
}

TEST_F(CacheWork, WhatOthersAreEntitledToIsNotPutToUseAgain) {
  rig().grow(400);
  const Pages held = cache().stats().held;
  rig().budget.set_pool(held - Pages(4));  // the pool grants it no more
  cache().press(Pages(4), true);
  ASSERT_EQ(rig().release({{64, 336}}), Result::ok);
  const std::uint64_t available = cache().available();
  rig().acquire(400);  // waits for it, but others wait too
  EXPECT_LT(rig().last.blocks, 64U);
  EXPECT_EQ(rig().last.blocks, available) << "said to be available";
  rig().work();
  rig().driver.finish();
  rig().work();
  EXPECT_LE(cache().stats().held, held - Pages(4));
  rig().budget.set_pool(Pages(4000));
  cache().press(Pages(), false);
  cache().pool_changed();
  rig().work();
  rig().acquire(300);
  EXPECT_EQ(rig().last.blocks, 300U);
  EXPECT_TRUE(rig().exact());
}

TEST_F(CacheWork, PressTakesNothingThatIsLive) {
  const auto ranges = rig().grow(200);
  EXPECT_LT(cache().press(Pages(1'000), false), Pages(30));
  rig().work();
  rig().driver.finish();
  rig().work();
  rig().verify_all();
  EXPECT_EQ(cache().stats().live, 200U);
  EXPECT_GE(cache().in_use_pages(), Pages(13));
  EXPECT_EQ(cache().in_use_pages(), cache().stats().used + cache().stats().fragmented);
  ASSERT_EQ(rig().release(ranges), Result::ok);
  EXPECT_EQ(cache().in_use_pages(), Pages());
}

TEST_F(CacheWork, ThePoolLearnsWhatCallersWaitFor) {
  rig().budget.set_pool(Pages(4));
  rig().acquire(500);
  rig().work();
  const Pages ready = cache().stats().held;  // and one stripe more, of 2 MiB in each tensor or 4
  EXPECT_GE(rig().budget.wish(), ready + Pages(2));
  EXPECT_LE(rig().budget.wish(), ready + Pages(4));
  rig().clock.advance(seconds(2));  // nobody asks again
  rig().work();
  EXPECT_EQ(rig().budget.wish(), Pages());
  cache().expect(500);  // a guess bothers nobody
  rig().work();
  EXPECT_EQ(rig().budget.wish(), Pages());
}

TEST_F(CacheWork, RoomInThePoolEndsTheWaitForARetry) {
  rig().budget.set_pool(Pages());
  rig().acquire(50);
  rig().work();
  rig().budget.set_pool(Pages(100));
  rig().work();
  EXPECT_EQ(cache().available(), 0U) << "it waits before it asks again";
  cache().pool_changed();
  rig().work();
  EXPECT_GE(cache().available(), 50U);
}

TEST_F(CacheWork, OneUnitIsOneStripe) {
  cache().expect(100);
  EXPECT_TRUE(cache().work().worked);
  EXPECT_EQ(cache().stats().grows, 1U);
  EXPECT_TRUE(cache().work().worked);
  EXPECT_EQ(cache().stats().grows, 2U);
}

TEST_F(CacheWork, AnAskThatNobodyRepeatsLapses) {
  rig().budget.set_pool(Pages());
  rig().acquire(50);
  rig().work();
  EXPECT_EQ(cache().stats().want, pages_up(Bytes(50 * 2 * kBlock.value)));
  rig().clock.advance(seconds(2));
  EXPECT_EQ(cache().stats().want, Pages());
  rig().budget.set_pool(Pages(1000));
  rig().work();
  EXPECT_EQ(cache().stats().held, Pages());
}

TEST_F(CacheWork, StaysWarmForAWhileThenLetsGoBehindAFence) {
  rig().grow(1'000);
  const Pages held = cache().stats().held;
  ASSERT_EQ(rig().release({{0, 1'000}}), Result::ok);
  rig().work();
  EXPECT_EQ(cache().stats().held, held);
  EXPECT_GT(cache().stats().warm, Pages());
  EXPECT_EQ(cache().stats().used, Pages());

  rig().clock.advance(seconds(60));
  rig().work();
  EXPECT_EQ(cache().stats().held, held);  // the work in flight has not passed
  EXPECT_EQ(rig().driver.violations(), 0U);
  rig().driver.finish();
  rig().work();
  EXPECT_EQ(cache().stats().held, Pages());
  EXPECT_EQ(rig().driver.violations(), 0U);
  EXPECT_EQ(rig().driver.open_fences(), 0U);
  EXPECT_TRUE(rig().exact());
}

TEST_F(CacheWork, DrainingBlocksCanBeTakenBack) {
  rig().grow(96);
  ASSERT_EQ(rig().release({{0, 96}}), Result::ok);
  cache().trim();
  rig().work();
  EXPECT_EQ(rig().driver.calls(Call::fence), 1U);
  EXPECT_GE(cache().available(), 96U);
  const std::uint64_t creates = rig().driver.calls(Call::create);
  const auto ranges = rig().acquire(40);  // two of the three stripes
  EXPECT_EQ(rig().last.blocks, 40U);
  rig().driver.finish();
  rig().work();
  rig().verify_all();
  EXPECT_EQ(rig().driver.calls(Call::create), creates);
  EXPECT_EQ(cache().stats().releases, 1U);  // the third went

  // Back again while the first fence has passed long ago: it needs one of its own.
  ASSERT_EQ(rig().release(ranges), Result::ok);
  cache().trim();
  rig().work();
  EXPECT_EQ(rig().driver.violations(), 0U);
  rig().settle();
  EXPECT_EQ(cache().stats().held, Pages());
}

TEST_F(CacheWork, AStripeReusedAndFreedBetweenMarkAndFenceIsCovered) {
  rig().grow(32);
  ASSERT_EQ(rig().release({{0, 32}}), Result::ok);
  cache().trim();
  EXPECT_TRUE(cache().work().worked);  // marked, no fence yet
  EXPECT_EQ(rig().driver.calls(Call::fence), 0U);
  const auto ranges = rig().acquire(32);
  EXPECT_FALSE(ranges.empty());
  ASSERT_EQ(rig().release(ranges), Result::ok);
  cache().trim();
  rig().work();
  EXPECT_EQ(rig().driver.violations(), 0U);
  rig().driver.finish();
  rig().work();
  EXPECT_EQ(cache().stats().held, Pages());
}

TEST_F(CacheWork, ExpectingAgainUndrainsBeforeBacking) {
  rig().grow(96);
  ASSERT_EQ(rig().release({{0, 96}}), Result::ok);
  cache().trim();
  rig().work();
  const std::uint64_t creates = rig().driver.calls(Call::create);
  cache().expect(90);
  rig().work();
  rig().driver.finish();
  rig().work();
  EXPECT_GE(cache().available(), 90U);
  EXPECT_EQ(rig().driver.calls(Call::create), creates);
}

TEST_F(CacheWork, TheWarmCapHolds) {
  Shape shape = tensors(2, 4'000, kBlock);
  shape.warm_cap = kMiB * 16;  // 128 blocks
  start(shape);
  rig().grow(1'000);
  ASSERT_EQ(rig().release({{0, 1'000}}), Result::ok);
  cache().expect(900);
  rig().settle();
  EXPECT_LE(bytes_of(cache().stats().held), kMiB * 16);
  EXPECT_GE(cache().available(), 100U);
}

TEST_F(CacheWork, TrimGivesAllBackButLiveStripes) {
  rig().grow(1'000);
  ASSERT_EQ(rig().release({{32, 968}}), Result::ok);
  cache().expect(500);
  cache().trim();
  rig().settle();
  EXPECT_EQ(cache().stats().held, Pages(2));
  EXPECT_EQ(cache().stats().live, 32U);
  rig().verify_all();
}

TEST_F(CacheWork, ACaptureOnlyDelaysLettingGo) {
  rig().grow(96);
  ASSERT_EQ(rig().release({{0, 96}}), Result::ok);
  cache().trim();
  rig().driver.set_capture(true);
  rig().work();
  const Work idle = cache().work();
  EXPECT_FALSE(idle.worked);
  EXPECT_LT(idle.next, rig().clock.now() + milliseconds(10));  // come again soon
  cache().expect(500);                                         // growth goes on
  rig().work();
  EXPECT_GE(cache().available(), 500U);
  cache().trim();
  rig().driver.set_capture(false);
  rig().settle();
  EXPECT_EQ(cache().stats().held, Pages());
  EXPECT_EQ(rig().driver.violations(), 0U);
}

TEST_F(CacheWork, AFenceIsAskedAgainAtOnceAtFirstAndThenLessOften) {
  rig().grow(96);
  rig().driver.launch(rig().address(rig().shape().segments[0], 0));
  ASSERT_EQ(rig().release({{0, 96}}), Result::ok);
  cache().trim();
  rig().work();
  std::vector<Duration> pauses;
  for (int i = 0; i < 8; ++i) {
    const Work idle = cache().work();
    ASSERT_FALSE(idle.worked);
    pauses.push_back(idle.next - rig().clock.now());
    rig().clock.advance(pauses.back());
  }
  EXPECT_LE(pauses.front(), std::chrono::microseconds(250));
  EXPECT_TRUE(std::is_sorted(pauses.begin(), pauses.end()));
  EXPECT_EQ(pauses.back(), milliseconds(1));
  rig().driver.finish();
  rig().work();
  EXPECT_EQ(cache().stats().held, Pages());
}

TEST_F(CacheWork, WithoutFencesItSynchronizes) {
  rig().driver.fail(Call::fence, 0, Status::unsupported, 1'000);
  rig().grow(96);
  ASSERT_EQ(rig().release({{0, 96}}), Result::ok);
  cache().trim();
  rig().work();
  EXPECT_EQ(cache().stats().held, Pages());
  EXPECT_EQ(rig().driver.violations(), 0U);
}

TEST_F(CacheWork, AFenceThatCannotBeAskedIsReplacedBySynchronizing) {
  rig().driver.fail(Call::fence_passed, 0);
  rig().grow(96);
  ASSERT_EQ(rig().release({{0, 96}}), Result::ok);
  cache().trim();
  rig().work();
  EXPECT_EQ(cache().stats().held, Pages());
  EXPECT_EQ(rig().driver.violations(), 0U);
  EXPECT_EQ(rig().driver.open_fences(), 0U);
}

TEST_F(CacheWork, AFullGpuIsNotAskedInAHotLoop) {
  rig().driver.set_capacity(rig().driver.used() + Pages(3));
  cache().expect(500);
  rig().work();
  EXPECT_EQ(cache().available(), 32U);
  EXPECT_EQ(cache().stats().short_grants, 1U);
  EXPECT_TRUE(rig().exact());
  const std::uint64_t creates = rig().driver.calls(Call::create);
  const Work idle = cache().work();
  EXPECT_EQ(rig().driver.calls(Call::create), creates);
  EXPECT_EQ(idle.next, rig().clock.now() + milliseconds(50));
  rig().driver.set_capacity(Pages(4096));
  rig().clock.advance(milliseconds(50));
  rig().work();
  EXPECT_GE(cache().available(), 500U);
  EXPECT_EQ(cache().stats().short_grants, 1U);
}

TEST_F(CacheWork, ReleasedMemoryIsAReasonToTryAgainAtOnce) {
  const auto ranges = rig().grow(64);
  rig().driver.set_capacity(rig().driver.used());
  cache().expect(100);
  rig().work();  // refused
  ASSERT_EQ(rig().release(ranges), Result::ok);
  cache().trim();
  rig().work();
  rig().driver.finish();
  rig().work();
  EXPECT_EQ(cache().available(), 0U);
  cache().expect(60);  // no time has passed
  rig().work();
  EXPECT_EQ(cache().available(), 64U);
}

TEST_F(CacheWork, NothingToDoMeansNoTimeIsNamed) {
  rig().grow(32);
  EXPECT_FALSE(cache().work().worked);
  EXPECT_EQ(cache().work().next, Instant::max());
  // Then a stripe that becomes vacant wakes the agent, once.
  const std::uint64_t wakes = rig().waker.wakes();
  ASSERT_EQ(rig().release({{0, 32}}), Result::ok);
  EXPECT_EQ(rig().waker.wakes(), wakes + 1);
}

TEST_F(CacheWork, ClosingReturnsEverythingAndTheBuffers) {
  rig().grow(500);
  for (const auto& [block, mark] : rig().marks) {
    rig().driver.launch(rig().address(rig().shape().segments[0], block));
  }
  const auto cache = rig().cache;
  cache->close();
  EXPECT_EQ(cache->available(), 0U);
  EXPECT_EQ(rig().cache->acquire(1, false, {}).result, Result::lost);
  EXPECT_EQ(cache->release(std::vector<BlockRange>{{0, 1}}), Result::lost);
  EXPECT_EQ(cache->wait_ready(1, Instant::max(), Patience::pool), Result::lost);
  rig().work();
  EXPECT_FALSE(cache->finished());
  rig().driver.finish();
  rig().work();
  EXPECT_TRUE(cache->finished());
  EXPECT_EQ(rig().driver.violations(), 0U);
  EXPECT_EQ(rig().budget.charged(), Pages());
  EXPECT_EQ(rig().buffers[0]->use(), Use::unclaimed);
  rig().marks.clear();
  ASSERT_EQ(rig().make(), Result::ok);  // and again
  rig().grow(100);
  rig().verify_all();
}

TEST_F(CacheWork, ClosingUnpins) {
  Shape shape = tensors(2, 4'000, kBlock);
  shape.pinned = {{0, 1}};
  start(shape);
  cache().close();
  rig().settle();
  EXPECT_TRUE(cache().finished());
  EXPECT_EQ(rig().budget.charged(), Pages());
}

TEST_F(CacheWork, FreeingABufferClosesTheCache) {
  rig().grow(500);
  const auto other = rig().buffers[1];
  ASSERT_EQ(rig().buffers[0]->destroy(), Result::ok);
  EXPECT_TRUE(cache().closed());
  EXPECT_EQ(cache().acquire(1, false, {}).result, Result::lost);
  rig().settle();
  EXPECT_TRUE(cache().finished());
  EXPECT_EQ(other->use(), Use::unclaimed);
  EXPECT_EQ(other->held(), Pages());
  EXPECT_EQ(rig().budget.charged(), Pages());
  EXPECT_TRUE(rig().exact());
}

TEST_F(CacheWork, ALostContextEndsIt) {
  rig().grow(500);
  ASSERT_EQ(rig().release({{0, 100}}), Result::ok);
  cache().trim();
  rig().driver.set_lost();
  rig().work();
  EXPECT_EQ(cache().available(), 0U);
  EXPECT_EQ(cache().acquire(1, false, {}).result, Result::lost);
  EXPECT_EQ(cache().work().next, Instant::max());
  cache().close();
  rig().work();
  EXPECT_TRUE(cache().finished());
}

TEST_F(CacheWork, WarmPagesOfAnIdleEngineDecayToNothing) {
  Shape shape = tensors(2, 4'000, kBlock);
  shape.pinned = {{0, 1}};
  start(shape);
  rig().grow(3'000);
  std::vector<BlockRange> live;
  for (const auto& [block, mark] : rig().marks) live.push_back({block, 1});
  ASSERT_EQ(rig().release(live), Result::ok);
  Pages before = cache().stats().held;
  for (int second = 0; second < 30; ++second) {
    rig().driver.finish();
    rig().work();
    rig().driver.finish();
    rig().work();
    const Pages now = cache().stats().held;
    EXPECT_LE(now, before);
    before = now;
    rig().clock.advance(seconds(1));
  }
  EXPECT_EQ(before, Pages(2));  // the pinned stripe
  EXPECT_EQ(rig().driver.violations(), 0U);
}

TEST_F(CacheWork, WarmPagesDecayFasterWhereNothingIsInUse) {
  std::array<Pages, 2> held;
  for (const bool told : {false, true}) {
    start(tensors(2, 4'000, kBlock));
    rig().grow(3'000);
    std::vector<BlockRange> live;
    for (const auto& [block, mark] : rig().marks) live.push_back({block, 1});
    if (told) cache().in_use(0);
    ASSERT_EQ(rig().release(live), Result::ok);
    for (int look = 0; look < 2; ++look) {
      rig().clock.advance(milliseconds(500));
      for (int turn = 0; turn < 2; ++turn) {
        rig().work();
        rig().driver.finish();
      }
    }
    held[told ? 1 : 0] = cache().stats().held;
  }
  EXPECT_LT(held[1].value * 4, held[0].value);
}

}  // namespace
}  // namespace kvcached::cache
