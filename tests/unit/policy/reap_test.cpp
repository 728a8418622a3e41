// Death and limbo: what is proof that the driver has freed a dead member's pages.
#include <gtest/gtest.h>

#include <functional>

#include "policy/ledger/control.hpp"
#include "policy/ledger/test_points.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

constexpr Duration kPatience = std::chrono::seconds(5);

// A pool of 100 pages on a GPU of 1000, with 300 pages of plain memory.
class ReapTest : public PoolFolder {
 protected:
  // What the driver has free when the living and the not yet freed hold this much.
  static Bytes left(std::uint64_t held, std::uint64_t plain = 300) {
    return free_pages(1000 - plain - held);
  }
};

// A pool as large as the GPU, so that plain memory hides whether the whole pool is free.
class LargePoolTest : public ReapTest {
 protected:
  LargePoolTest() {
    living_ = member("living", 0, 1000, 1000);
    dying_ = member("dying", 0, 1000, 1000);
    EXPECT_TRUE(living_->charge(Pages(100)));
    EXPECT_TRUE(dying_->charge(Pages(200)));
  }
  void die() { dying_.reset(); }
  Pages limbo() { return living_->snapshot().limbo; }

  std::unique_ptr<Ledger> living_;
  std::unique_ptr<Ledger> dying_;
};

TEST_F(ReapTest, DeadMembersPagesAreNotFreeAtOnce) {
  const auto a = member("a");
  auto b = member("b");
  ASSERT_TRUE(b->charge(Pages(60)));
  b.reset();
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.limbo, Pages(60));
  EXPECT_EQ(books.free, Pages(40));
  EXPECT_FALSE(a->charge(Pages(41)));
}

std::function<void()> at_suspicion;

// Who is dead is asked before the lock is taken; by then the slot may be a newcomer's.
TEST_F(ReapTest, SlotOfADeadMemberThatIsTakenMeanwhileIsNotBuried) {
  const auto a = member("a");
  auto b = member("b");
  b->abandon();  // dead, and nobody has noticed
  std::unique_ptr<Ledger> c;
  at_suspicion = [&] {
    c = member("c");
    EXPECT_TRUE(c->charge(Pages(40)));
  };
  test_point_hook = [](const char* name) {
    if (std::string_view(name) != "reap.suspected") return;
    test_point_hook = nullptr;
    at_suspicion();
  };
  EXPECT_EQ(a->reap(Bytes(0)), Pages(0));
  ASSERT_EQ(test_point_hook, nullptr);
  const Snapshot books = a->snapshot();
  ASSERT_EQ(books.members.size(), 2U);
  EXPECT_EQ(books.members.at(1).tenant, "c");
  EXPECT_TRUE(books.members.at(1).alive);
  EXPECT_EQ(books.charged, Pages(40));
}

TEST_F(ReapTest, MemberWithoutChargeLeavesNoLimbo) {
  const auto a = member("a");
  auto b = member("b");
  b.reset();
  EXPECT_EQ(a->reap(Bytes(0)), Pages(0));
  EXPECT_EQ(a->snapshot().members.size(), 1U);
}

TEST_F(ReapTest, LimboEndsWhenTheWholePoolIsFreeOnTheGpu) {
  const auto a = member("a");
  auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(20)));
  ASSERT_TRUE(b->charge(Pages(60)));
  b.reset();
  // 20 are left to grant, 60 in limbo: 80 must be there.
  EXPECT_EQ(a->reap(free_pages(79)), Pages(60));
  EXPECT_EQ(a->reap(free_pages(80)), Pages(0));
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.free, Pages(80));
  EXPECT_EQ(books.unconfirmed, Pages(0));
  EXPECT_EQ(books.members.size(), 1U);
}

TEST_F(ReapTest, GpuMustBeFreeForAllThatLeavesLimbo) {
  const auto a = member("a");
  auto b = member("b");
  auto c = member("c");
  ASSERT_TRUE(b->charge(Pages(30)));
  ASSERT_TRUE(c->charge(Pages(40)));
  b.reset();
  c.reset();
  EXPECT_EQ(a->reap(free_pages(75)), Pages(40));  // enough for either, not for both
  EXPECT_EQ(a->reap(free_pages(99)), Pages(40));
  EXPECT_EQ(a->reap(free_pages(100)), Pages(0));
}

TEST_F(LargePoolTest, LimboEndsWhenTheGpuHasGrownByIt) {
  living_->reap(left(300));
  die();
  EXPECT_EQ(living_->reap(left(300)), Pages(200));
  EXPECT_EQ(living_->reap(left(200)), Pages(200));
  EXPECT_EQ(living_->reap(left(100)), Pages(0));
  EXPECT_EQ(living_->snapshot().free, Pages(900));
  EXPECT_EQ(living_->snapshot().unconfirmed, Pages(0));
}

TEST_F(LargePoolTest, SevenEighthsAreProof) {
  living_->reap(left(300));
  die();
  EXPECT_EQ(living_->reap(left(126)), Pages(200));
  EXPECT_EQ(living_->reap(left(125)), Pages(0));
}

TEST_F(LargePoolTest, GrowthAndShrinkingOfTheLivingIsNoProof) {
  living_->reap(left(300));
  die();
  living_->uncharge(Pages(100));
  ASSERT_TRUE(living_->charge(Pages(20)));
  EXPECT_EQ(living_->reap(left(220)), Pages(200));
  ASSERT_TRUE(living_->charge(Pages(300)));
  EXPECT_EQ(living_->reap(left(520)), Pages(200));
  EXPECT_EQ(living_->reap(left(320)), Pages(0));
}

TEST_F(LargePoolTest, MemoryFreedBeforeTheDeathWasSeenIsProof) {
  living_->reap(left(300));
  die();
  EXPECT_EQ(living_->reap(left(100)), Pages(0));
}

TEST_F(LargePoolTest, PlainAllocationHidesTheReturnOnlyOnce) {
  living_->reap(left(300));
  die();
  EXPECT_EQ(living_->reap(left(300, 450)), Pages(200));
  EXPECT_EQ(living_->reap(left(100, 450)), Pages(0));
  EXPECT_EQ(living_->snapshot().unconfirmed, Pages(0));
}

TEST_F(LargePoolTest, WithoutAnEarlierLookTheFirstOneCounts) {
  die();
  EXPECT_EQ(living_->reap(left(300)), Pages(200));
  EXPECT_EQ(living_->reap(left(100)), Pages(0));
}

TEST_F(LargePoolTest, TwoDeathsNeedTheSumOfBoth) {
  auto third = member("third", 0, 1000, 1000);
  ASSERT_TRUE(third->charge(Pages(80)));
  living_->reap(left(380));
  die();
  third.reset();
  EXPECT_EQ(living_->reap(left(380)), Pages(280));
  EXPECT_EQ(living_->reap(left(180)), Pages(80));
  EXPECT_EQ(living_->reap(left(100)), Pages(0));
}

TEST_F(LargePoolTest, AfterFiveSecondsLimboGoesUnconfirmed) {
  living_->reap(left(300));
  die();
  clock_.advance(kPatience - Duration(1));
  EXPECT_EQ(living_->reap(left(300)), Pages(200));
  clock_.advance(Duration(1));
  EXPECT_EQ(living_->reap(left(300)), Pages(0));
  EXPECT_EQ(living_->snapshot().unconfirmed, Pages(200));
}

TEST_F(LargePoolTest, NewcomersAreNotHeldUpByOldLimbo) {
  die();
  clock_.advance(kPatience);
  const auto next = member("next", 900, 1000, 1000);
  EXPECT_EQ(next->limits().min, Pages(900));
  EXPECT_EQ(limbo(), Pages(0));
}

TEST_F(LargePoolTest, LaterDeathStartsFromTheNewBase) {
  living_->reap(left(300));
  die();
  EXPECT_EQ(living_->reap(left(100)), Pages(0));
  // Much plain memory was freed since; it must not prove the next death's return.
  EXPECT_EQ(living_->reap(left(100, 10)), Pages(0));
  auto next = member("next", 0, 1000, 1000);
  ASSERT_TRUE(next->charge(Pages(200)));
  living_->reap(left(300, 10));
  next.reset();
  EXPECT_EQ(living_->reap(left(300, 10)), Pages(200));
  EXPECT_EQ(living_->reap(left(100, 10)), Pages(0));
}

TEST_F(ReapTest, LimboOutlivesAllMembers) {
  auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(60)));
  a.reset();
  const auto b = member("b", 50);
  EXPECT_EQ(b->limits().min, Pages(0));
  EXPECT_EQ(b->snapshot().limbo, Pages(60));
  EXPECT_EQ(b->reap(free_pages(99)), Pages(60));
  EXPECT_EQ(b->reap(free_pages(100)), Pages(0));
}

TEST_F(ReapTest, WhoKnowsOfASmallerPoolBuriesAllThatTheDeadHeld) {
  const auto with_total = [&](std::uint64_t total) {
    return Ledger::open({path_, gpu_, Pages(100), Pages(total)}, clock_, refusal_, complaint_);
  };
  const auto witness = with_total(1000);
  const auto modest = with_total(0);
  ASSERT_TRUE(modest->join({"modest", {}, "test"}, complaint_));
  ASSERT_EQ(change_pool(path_, gpu_, {bytes_of(Pages(200)), 0, false}, clock_), "");
  const auto large = with_total(1000);
  ASSERT_TRUE(large->join({"large", {}, "test"}, complaint_));
  ASSERT_TRUE(large->charge(Pages(150)));
  large->abandon();
  modest->reap(free_pages(0));
  EXPECT_EQ(witness->snapshot().limbo, Pages(150));
  EXPECT_EQ(witness->snapshot().free, Pages(50));
}

TEST_F(ReapTest, LimboStaysWithinASmallerPool) {
  auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(60)));
  a.reset();
  const auto b = member("b", 0, 50, 50);
  const Snapshot books = b->snapshot();
  EXPECT_EQ(books.pool, Pages(50));
  EXPECT_EQ(books.limbo, Pages(50));
  EXPECT_EQ(books.free, Pages(0));
  EXPECT_FALSE(b->charge(Pages(1)));
  EXPECT_EQ(b->reap(free_pages(50)), Pages(0));
  EXPECT_TRUE(b->charge(Pages(50)));
}

TEST_F(ReapTest, RestartedTenantGetsItsMinimumOutOfItsOwnLimbo) {
  auto a = member("a", 50);
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(50)));
  ASSERT_TRUE(b->charge(Pages(50)));
  a.reset();
  a = member("a", 40);
  EXPECT_EQ(a->limits().min, Pages(40));
  EXPECT_FALSE(a->charge(Pages(1)));
  b->reap(free_pages(50));
  EXPECT_FALSE(b->charge(Pages(11)));
  EXPECT_TRUE(a->charge(Pages(40)));
}

TEST_F(ReapTest, FreeMemoryBeyondAllBoundsIsNoHarm) {
  const auto a = member("a");
  auto b = member("b");
  ASSERT_TRUE(b->charge(Pages(60)));
  b.reset();
  EXPECT_EQ(a->reap(Bytes::max()), Pages(0));
  EXPECT_EQ(a->snapshot().free, Pages(100));
}

}  // namespace
}  // namespace kvcached::ledger
