// Several memberships when the pool is short: who is asked to give back, and who gets what comes
// free. The rules themselves are tested with the policy; here, that the account follows them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

#include "policy/ledger/ledger.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

class ContestTest : public PoolFolder {
 protected:
  static void use(Ledger& member, std::uint64_t used, std::uint64_t stripe = 5) {
    member.publish(figures(used, stripe));
  }
};

TEST_F(ContestTest, AClaimCallsUponIdlePeers) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 20);
  use(*b, 0);
  const std::uint32_t rung = a->rung();
  EXPECT_EQ(a->duty().reclaim, Pages());
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  EXPECT_GE(a->duty().reclaim, Pages(30));
  EXPECT_LE(a->duty().reclaim, Pages(40));
  EXPECT_NE(a->rung(), rung) << "nobody told it";

  // A wish is met as a whole: then the claimant is told.
  const std::uint32_t heard = b->rung();
  a->uncharge(Pages(15));
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  EXPECT_GE(a->duty().reclaim, Pages(15));
  a->uncharge(Pages(20));
  EXPECT_NE(b->rung(), heard);
  EXPECT_TRUE(b->charge(Pages(10), Pages(30)));
  EXPECT_TRUE(b->charge(Pages(20), Pages(30)));
  EXPECT_EQ(a->duty().reclaim, Pages()) << "all claims are met";
  EXPECT_EQ(b->charged(), Pages(30));
}

// Who says what it will need keeps what it has for that, from claims that are young.
TEST_F(ContestTest, AnnouncedDemandKeepsIdlePages) {
  const auto a = member("a");
  const auto b = member("b");
  const auto c = member("c");
  for (const auto* each : {&a, &b}) {
    ASSERT_TRUE((*each)->charge(Pages(50)));
    use(**each, 10);
  }
  EXPECT_FALSE(c->charge(Pages(20), Pages(20)));
  EXPECT_EQ(a->duty().reclaim, Pages(20)) << "all else is equal";
  use_and_need(*a, 10, 0, 50);
  EXPECT_FALSE(c->charge(Pages(20), Pages(20)));
  EXPECT_EQ(a->duty().reclaim, Pages());
  EXPECT_EQ(b->duty().reclaim, Pages(20));
}

TEST_F(ContestTest, WhoAsksIsNotSilent) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  clock_.advance(std::chrono::seconds(4));  // in which nobody's agent said anything
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_GE(a->duty().reclaim, Pages(10));
}

// Their idle pages count as kept for the claim, so that nobody else is asked for them.
TEST_F(ContestTest, ProcessesOfOneTenantGiveToEachOther) {
  const auto a = member("same", 0, 60);
  const auto b = member("same", 0, 60);
  const auto other = member("other");
  ASSERT_TRUE(a->charge(Pages(60)));
  ASSERT_TRUE(other->charge(Pages(20)));
  use(*a, 20);
  use(*other, 0);
  const std::uint32_t rung = a->rung();
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  EXPECT_EQ(a->duty().reclaim, Pages(30));
  EXPECT_NE(a->rung(), rung) << "nobody told it";
  EXPECT_EQ(other->duty().reclaim, Pages()) << "the tenant may have no more";
  a->uncharge(Pages(30));
  EXPECT_EQ(a->duty().reclaim, Pages()) << "they are free";
  EXPECT_TRUE(b->charge(Pages(10), Pages(30)));
  EXPECT_EQ(a->duty().reclaim, Pages());
  ASSERT_TRUE(other->charge(Pages(30)));
  EXPECT_EQ(a->duty().reclaim, Pages(10)) << "ten are there already, and ten are free";
  a->uncharge(Pages(10));
  EXPECT_TRUE(b->charge(Pages(20), Pages(30)));
  EXPECT_EQ(a->duty().reclaim, Pages());
  b->drop_claim();
  use(*b, 30);
  EXPECT_EQ(a->duty().reclaim, Pages());
}

TEST_F(ContestTest, AStoppedSiblingIsNotGivenTo) {
  const auto a = member("same");
  const auto b = member("same");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  ASSERT_EQ(a->duty().reclaim, Pages(30));
  clock_.advance(std::chrono::seconds(4));
  EXPECT_EQ(a->duty().reclaim, Pages()) << "it does not even take what is there";
  use(*b, 0);
  EXPECT_EQ(a->duty().reclaim, Pages(30)) << "it goes on";
}

TEST_F(ContestTest, WhatIsFreeSiblingsNeedNotGive) {
  const auto a = member("same", 0, 90);
  const auto b = member("same", 0, 90);
  const auto other = member("other", 5);
  ASSERT_TRUE(a->charge(Pages(80)));
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(30), Pages(30)));
  EXPECT_EQ(a->duty().reclaim, Pages(20)) << "not all that is free: of that, it may have ten";
  ASSERT_TRUE(other->charge(Pages(15)));
  EXPECT_EQ(a->duty().reclaim, Pages(25)) << "five are left";
}

TEST_F(ContestTest, SiblingsGiveTogetherWhatOneLacks) {
  const auto a = member("same");
  const auto b = member("same");
  const auto c = member("same");
  const auto waiter = member("same");
  ASSERT_TRUE(a->charge(Pages(50)));
  ASSERT_TRUE(b->charge(Pages(30)));
  ASSERT_TRUE(c->charge(Pages(20)));
  use(*a, 20);
  use(*b, 15);
  use(*c, 20);
  EXPECT_FALSE(waiter->charge(Pages(10), Pages(15)));
  EXPECT_EQ(a->duty().reclaim, Pages(10));
  EXPECT_EQ(b->duty().reclaim, Pages(5));
  EXPECT_EQ(c->duty().reclaim, Pages()) << "it has nothing idle";
  // Beyond what is idle, each lets go of what it can do without.
  EXPECT_FALSE(waiter->charge(Pages(10), Pages(55)));
  EXPECT_EQ(a->duty().reclaim, Pages(34));
  EXPECT_EQ(b->duty().reclaim, Pages(19));
  EXPECT_EQ(c->duty().reclaim, Pages(4));
}

// What another tenant waits for, they give together: of what is idle, and of what is in use.
TEST_F(ContestTest, ProcessesOfOneTenantShareWhatIsAskedOfIt) {
  const auto a = member("same");
  const auto b = member("same");
  const auto other = member("other");
  ASSERT_TRUE(a->charge(Pages(60)));
  ASSERT_TRUE(b->charge(Pages(40)));
  use(*a, 30);
  use(*b, 30);
  EXPECT_FALSE(other->charge(Pages(20), Pages(20)));
  EXPECT_EQ(a->duty().reclaim, Pages(15));
  EXPECT_EQ(b->duty().reclaim, Pages(5));
  EXPECT_EQ(a->duty().reuse, Pages(40)) << "both use as much";
  EXPECT_EQ(b->duty().reuse, Pages(40));

  use(*a, 60);
  use(*b, 40);
  EXPECT_FALSE(other->charge(Pages(20), Pages(20)));
  EXPECT_EQ(a->duty().reclaim, Pages());
  EXPECT_EQ(a->duty().reuse, Pages(48));
  EXPECT_EQ(b->duty().reuse, Pages(32));
  clock_.advance(std::chrono::seconds(4));
  use(*a, 60);
  EXPECT_FALSE(other->charge(Pages(20), Pages(20)));
  EXPECT_EQ(a->duty().reuse, Pages(40)) << "b has stopped, and gives nothing";
}

// Or its own request could not begin with what is there for it.
TEST_F(ContestTest, AMemberMayUseWhatItWaitsFor) {
  const auto a = member("same");
  const auto b = member("same");
  const auto other = member("other");
  ASSERT_TRUE(a->charge(Pages(20)));
  ASSERT_TRUE(b->charge(Pages(30)));
  ASSERT_TRUE(other->charge(Pages(50)));
  use(*a, 20);
  use(*b, 30);
  use(*other, 50);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  clock_.advance(std::chrono::milliseconds(1));
  EXPECT_FALSE(a->charge(Pages(10), Pages(10)));
  EXPECT_EQ(a->duty().reuse, Pages(17)) << "of 50; b has waited longer";
  EXPECT_EQ(b->duty().reuse, Pages(34));
  b->drop_claim();
  EXPECT_EQ(a->duty().reuse, Pages(25));
  EXPECT_EQ(b->duty().reuse, Pages(25));
}

TEST_F(ContestTest, SiblingsAreToldAgainWhileOneWaits) {
  const auto a = member("same");
  const auto b = member("same");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  const std::uint32_t told = a->rung();
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  EXPECT_EQ(a->rung(), told) << "it knows";
  clock_.advance(std::chrono::milliseconds(100));
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  EXPECT_NE(a->rung(), told);
}

TEST_F(ContestTest, SiblingsGiveNoMoreThanTheirTenantMayHave) {
  const auto a = member("same", 0, 60);
  const auto b = member("same", 0, 60);
  ASSERT_TRUE(a->charge(Pages(60)));
  use(*a, 0);
  EXPECT_FALSE(b->charge(Pages(10), Pages(90)));
  EXPECT_EQ(a->duty().reclaim, Pages(60));
}

TEST_F(ContestTest, TwoThatWaitDoNotGiveInTurns) {
  const auto a = member("same", 0, 60);
  const auto b = member("same", 0, 60);
  ASSERT_TRUE(a->charge(Pages(60)));
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  clock_.advance(std::chrono::milliseconds(1));
  EXPECT_FALSE(a->charge(Pages(10), Pages(50)));
  EXPECT_EQ(a->duty().reclaim, Pages(30)) << "b has waited longer";
  EXPECT_EQ(b->duty().reclaim, Pages());
}

TEST_F(ContestTest, WhatIsInUseIsNotAskedFor) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 100);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_EQ(a->duty().reclaim, Pages());
  // But its holder may not use again what it frees above its share.
  EXPECT_LT(a->duty().reuse, Pages(100));
}

TEST_F(ContestTest, WhoMayUseLessIsToldAtOnce) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 100);
  use(*b, 0);
  const std::uint32_t rung = a->rung();
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  ASSERT_LT(a->duty().reuse, Pages(100));
  const std::uint32_t told = a->rung();
  EXPECT_NE(told, rung);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_EQ(a->rung(), told) << "it knows";
  // The same once more, when it is news again.
  b->drop_claim();
  ASSERT_EQ(a->duty().reuse, Pages::max());
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_NE(a->rung(), told);
}

TEST_F(ContestTest, WhatComesFreeIsAskedForAtOnce) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 100);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  ASSERT_EQ(a->duty().reclaim, Pages());
  use(*a, 60);
  EXPECT_GE(a->duty().reclaim, Pages(10));
}

// It wants more itself, and from the last pages no young wish is met.
TEST_F(ContestTest, AFullPoolMakesWayAndTakesNothingBack) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(95)));
  use(*a, 95);
  use(*b, 0);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  clock_.advance(std::chrono::milliseconds(1));
  EXPECT_FALSE(a->charge(Pages(10), Pages(10)));
  for (std::uint64_t used = 90; used >= 85; used -= 5) {
    EXPECT_LE(a->duty().reuse, Pages(used + 3)) << "it is not asked for more";
    use(*a, used);
    a->uncharge(Pages(5));
    EXPECT_FALSE(a->charge(Pages(5), Pages(10))) << "it takes back what it gave";
  }
  EXPECT_TRUE(b->charge(Pages(10), Pages(10)));
}

TEST_F(ContestTest, AMemberThatCannotGiveBackIsLeftAlone) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 0, 0);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_EQ(a->duty().reclaim, Pages());
}

TEST_F(ContestTest, ASilentMemberIsNotWaitedFor) {
  const auto a = member("a");
  const auto b = member("b");
  const auto c = member("c");
  ASSERT_TRUE(a->charge(Pages(60)));
  ASSERT_TRUE(c->charge(Pages(40)));
  use(*a, 0);
  clock_.advance(std::chrono::seconds(10));
  use(*c, 0);
  EXPECT_FALSE(b->charge(Pages(20), Pages(20)));
  EXPECT_EQ(a->duty().reclaim, Pages()) << "stopped, as far as anybody knows";
  EXPECT_GE(c->duty().reclaim, Pages(20));
}

TEST_F(ContestTest, MinimumsAreNotCutInto) {
  const auto a = member("a", 40);
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 0);
  EXPECT_FALSE(b->charge(Pages(80), Pages(80)));
  EXPECT_LE(a->duty().reclaim, Pages(60));
}

TEST_F(ContestTest, WeightsDecideWhoMayGrow) {
  const auto light = open();
  ASSERT_TRUE(light->join({"light", {Pages(), Pages::max(), 100}, "test"}, complaint_));
  const auto heavy = open();
  ASSERT_TRUE(heavy->join({"heavy", {Pages(), Pages::max(), 300}, "test"}, complaint_));
  ASSERT_TRUE(light->charge(Pages(98)));
  use(*light, 98);
  use(*heavy, 0);
  EXPECT_FALSE(heavy->charge(Pages(5), Pages(50)));
  light->uncharge(Pages(20));
  use(*light, 78);
  EXPECT_LT(light->duty().reuse, Pages(78)) << "it has more than its share";
  light->uncharge(Pages(40));
  use(*light, 38);
  EXPECT_TRUE(heavy->charge(Pages(50), Pages(50)));
}

TEST_F(ContestTest, ADroppedClaimBothersNobody) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 0);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  ASSERT_GE(a->duty().reclaim, Pages(10));
  b->drop_claim();
  EXPECT_EQ(a->duty().reclaim, Pages());
  EXPECT_EQ(a->duty().reuse, Pages::max());
}

// Whoever holds the lock may be stopped: nobody waits for that, and nothing is forgotten over it.
TEST_F(ContestTest, AClaimThatCannotBeDroppedNowIsDroppedLater) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 20);
  const std::function<void()> ways[] = {
      [&] { b->reap(free_pages(0)); },
      [&] { use(*b, 0); },
      [&] { b->uncharge(Pages(0)); },
  };
  for (const auto& way : ways) {
    EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
    ASSERT_GE(a->duty().reclaim, Pages(30));
    {
      const PoolFile holder(::open(file().c_str(), O_RDWR | O_CLOEXEC));
      ASSERT_TRUE(holder.try_lock(LockKind::exclusive));
      const Instant before = steady_clock().now();
      b->drop_claim();
      EXPECT_LT(steady_clock().now() - before, std::chrono::milliseconds(20));
      way();
      EXPECT_GE(a->duty().reclaim, Pages(30));
    }
    way();
    EXPECT_EQ(a->duty().reclaim, Pages());
    EXPECT_EQ(a->duty().reuse, Pages::max());
  }
}

TEST_F(ContestTest, AClaimThatIsYetToBeDroppedTakesNoneWithIt) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(10), Pages(30)));
  {
    const PoolFile holder(::open(file().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(holder.try_lock(LockKind::exclusive));
    b->drop_claim();
  }
  EXPECT_FALSE(b->charge(Pages(10), Pages(40)));
  b->reap(free_pages(0));
  use(*b, 0);
  EXPECT_GE(a->duty().reclaim, Pages(40));
}

TEST_F(ContestTest, AClaimDiesWithItsMember) {
  const auto a = member("a");
  auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 0);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  b->abandon();
  a->reap(free_pages(0));
  EXPECT_EQ(a->duty().reclaim, Pages());
}

TEST_F(ContestTest, WithoutAWishNobodyIsBothered) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 0);
  EXPECT_FALSE(b->charge(Pages(10)));
  EXPECT_EQ(a->duty().reclaim, Pages());
}

TEST_F(ContestTest, WaitEndsWithARing) {
  const auto a = member("a");
  const std::uint32_t seen = a->rung();
  a->wake();
  a->wait(seen, std::chrono::hours(1));
  EXPECT_EQ(a->rung(), seen + 1);
  a->wait(a->rung(), std::chrono::milliseconds(1));
}

TEST_F(ContestTest, WaitWithoutABellIsNoSpin) {
  const auto a = member("a");
  ASSERT_EQ(::truncate(file().c_str(), 4096), 0);
  const Instant before = steady_clock().now();
  a->wait(a->rung(), std::chrono::hours(1));
  EXPECT_GE(steady_clock().now() - before, std::chrono::milliseconds(5));
}

}  // namespace
}  // namespace kvcached::ledger
