// Plans: targets and victims.
#include "policy/balance.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

TEST(BalanceTest, TargetsFollowDemandWhileItFits) {
  Rig rig(1000);
  rig.add(300, 10).demand = Pages(200);
  rig.add(20, 20);
  rig.wish(1, 300);
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(200));
  EXPECT_EQ(rig.target(1), Pages(320));
}

TEST(BalanceTest, TargetsNeverFallBelowWhatIsUsedWhileItFits) {
  Rig rig(1000);
  rig.add(300, 300).demand = Pages(10);
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(300));
}

TEST(BalanceTest, TargetsByWeightWithinMinimumAndMaximum) {
  Rig rig(1000);
  rig.add(250, 250).weight = 2;
  rig.add(250, 250);
  rig.add(250, 250).max = Pages(100);
  rig.add(250, 250, 400);
  for (std::size_t i = 0; i < 4; ++i) rig.wish(i, 900);
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(333));
  EXPECT_EQ(rig.target(1), Pages(166));
  EXPECT_EQ(rig.target(2), Pages(100));
  EXPECT_EQ(rig.target(3), Pages(400));
}

TEST(BalanceTest, WhatIsFreeIsNotTakenFromAnyone) {
  Rig rig(1000);
  rig.add(500, 0);
  rig.add(100, 100);
  rig.wish(1, 380);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  rig.wish(1, 381);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(1));
}

TEST(BalanceTest, NothingIsTakenForWhatExceedsAMaximum) {
  Rig rig(1000);
  rig.add(990, 0);
  rig.add(10, 10).max = Pages(30);
  rig.wish(1, 100);
  rig.plan();
  EXPECT_EQ(claim(rig[1]), Pages(20));
  EXPECT_EQ(rig.reclaim(0), Pages(20));
}

TEST(BalanceTest, WhatIsOnItsWayIsNotTakenOnceMore) {
  Rig rig(1000);
  rig.add(900, 0).leaving = Pages(120);
  rig.add(100, 100);
  rig.wish(1, 200);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(200 - 120));
}

// A floor is free already. Taking pages for it would take them for nothing.
TEST(BalanceTest, NothingIsTakenForAFloor) {
  Rig rig(1000);
  rig.add(700, 0);
  rig.add(0, 0, 300);
  rig.wish(1, 300);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
}

TEST(BalanceTest, UsedPagesMinimumAndTargetAreSafe) {
  Rig rig(1000);
  rig.add(300, 250);
  rig.add(300, 0, 280);
  rig.add(300, 0).demand = Pages(290);
  rig.add(100, 100);
  rig.wish(3, 300);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(50));
  EXPECT_EQ(rig.reclaim(1), Pages(20));
  EXPECT_EQ(rig.target(2), Pages(70));
  EXPECT_EQ(rig.reclaim(2), Pages(230));
}

TEST(BalanceTest, WhatIsOnItsWayServesOneClaim) {
  Rig rig(1000);
  rig.add(800, 0).leaving = Pages(120);
  rig.add(100, 100);
  rig.add(100, 100);
  rig.wish(1, 100, seconds(2));
  rig.wish(2, 100, seconds(1));
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(80));
}

TEST(BalanceTest, WhatIsOnItsWayIsGoneAlready) {
  Rig rig(1000);
  rig.add(900, 0, 450).leaving = Pages(400);
  rig.add(100, 100);
  rig.wish(1, 450);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(50));
  rig.wish(1, 451);
  EXPECT_EQ(rig.plan(), Pages(51));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
}

// In a pool that shrank, targets may lie below minimums. What is there of a minimum stays.
TEST(BalanceTest, AMinimumIsSafeThoughThePoolCannotCoverIt) {
  Rig rig(1000);
  rig.add(350, 0, 400);
  rig.add(150, 150, 600);
  rig.pool.shortfall = Pages(500);
  rig.wish(1, 900);
  EXPECT_GT(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(200));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_TRUE(may_reuse(rig[0], Pages(350)));
}

TEST(BalanceTest, OfEqualVictimsTheSmallerIdComesFirst) {
  Rig rig(1000);
  rig.add(400, 200);
  rig.add(400, 200);
  rig.add(200, 200);
  std::swap(rig[0].id, rig[1].id);
  rig.wish(2, 50);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.reclaim(1), Pages(50));
}

// The one with fewer pages is the first victim, because most of them are idle.
TEST(BalanceTest, IdlePagesAreTaxed) {
  Rig rig(1000);
  rig.add(500, 400);
  rig.add(400, 200);
  rig.add(100, 100);
  rig.wish(2, 50);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.reclaim(1), Pages(50));
  rig.rules.idle_tax = 1;
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(50));
}

TEST(BalanceTest, TheSmallerWeightIsTheFirstVictim) {
  Rig rig(1000);
  rig.add(400, 200).weight = 3;
  rig.add(400, 200).weight = 2;
  rig.add(200, 200).weight = 4;
  rig.wish(2, 50);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.reclaim(1), Pages(50));
}

// Tenants without a wish must not keep idle for a forecast what others wait for.
TEST(BalanceTest, NeedsComeBeforeForecasts) {
  Rig rig(1000);
  rig.add(600, 100).demand = Pages(600);
  rig.add(400, 400);
  rig.wish(1, 500);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(100));
  EXPECT_EQ(rig.reclaim(0), Pages(500));
}

// Two unfinished wishes that together exceed the pool: each holds what the other waits for. And
// many of them would fill it.
TEST(BalanceTest, AnOlderWishGetsWhatYoungerOnesHold) {
  Rig rig(1000);
  rig.add(500, 0);
  rig.add(500, 0);
  rig.wish(0, 900, seconds(2));
  rig.wish(1, 900, seconds(3));
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(400));
  EXPECT_EQ(rig.reclaim(1), Pages(0));
}

TEST(BalanceTest, NobodyTakesFromWhoFundsItsPagesNearlyAsWell) {
  Rig rig(1000);
  rig.add(500, 490);  // costs 530
  rig.add(500, 500);
  rig.wish(1, 8);
  rig.rules.proximity_percent = 6;
  EXPECT_EQ(rig.plan(), Pages(8));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  rig.rules.proximity_percent = 5;
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(8));
  rig.rules.proximity_percent = 6;
  rig.wish(1, 8, seconds(6));  // aged: from anyone
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(8));
}

TEST(BalanceTest, ReclaimsAreWholeStripesOfTheVictim) {
  Rig rig(1000);
  rig.add(900, 800).stripe = Pages(32);
  rig.add(100, 100);
  rig.wish(1, 23);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(32));
  rig[0].used = Pages(869);
  EXPECT_EQ(rig.plan(), Pages(23));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
}

// Nobody can use the part of a stripe; the parts of all may be what a claim lacks.
TEST(BalanceTest, AStripePartlyAboveTheTargetIsTaken) {
  Rig rig(1000);
  rig.add(90, 0).stripe = Pages(30);
  rig.add(300, 300);
  rig.add(600, 600);
  rig[0].demand = Pages(70);
  rig.wish(1, 20);
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(70));
  EXPECT_EQ(rig.reclaim(0), Pages(30));
  rig[0].min = Pages(61);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(0));
}

TEST(BalanceTest, WhatOneClaimLeavesOfAStripeServesTheNext) {
  Rig rig(1000);
  rig.add(700, 300).stripe = Pages(128);
  rig.add(150, 150);
  rig.add(150, 150);
  rig.wish(1, 60, seconds(2));
  rig.wish(2, 50, seconds(1));
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(128));
}

TEST(BalanceTest, DueInBatchesOfWholeStripes) {
  Rig rig(1000);
  rig.rules.batch = Pages(16);
  rig.add(900, 100);
  rig[0].plan.reclaim = Pages(40);
  EXPECT_EQ(due(rig[0], rig.rules), Pages(16));
  rig[0].stripe = Pages(3);
  EXPECT_EQ(due(rig[0], rig.rules), Pages(15));
  rig[0].stripe = Pages(40);
  EXPECT_EQ(due(rig[0], rig.rules), Pages(40));
  rig[0].used = Pages(880);
  EXPECT_EQ(due(rig[0], rig.rules), Pages(0));
}

Rig random_rig(std::mt19937& random) {
  const auto upto = [&](std::uint64_t n) { return random() % (n + 1); };
  Rig rig(2000);
  for (std::uint64_t n = 1 + upto(12); n > 0; --n) {
    const std::uint64_t charged = upto(200);
    Tenant& t = rig.add(charged, upto(charged), upto(2) == 0 ? upto(150) : 0);
    t.id = upto(1000) * 100 + n;
    t.weight = static_cast<std::uint32_t>(1 + upto(4));
    t.stripe = Pages(1 + upto(8));
    t.demand = Pages(upto(300));
    t.loose = Pages(upto(300));
    t.stopped = upto(9) == 0;
    if (upto(1) == 0) rig.wish(rig.tenants.size() - 1, upto(300), seconds(upto(12)));
  }
  return rig;
}

TEST(BalanceTest, PlanningAgainChangesNothing) {
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    Rig rig = random_rig(random);
    const Pages unmet = rig.plan();
    const std::vector<Tenant> before = rig.tenants;
    const Level level = rig.pool.level;
    ASSERT_EQ(rig.plan(), unmet);
    ASSERT_EQ(rig.pool.level, level);
    for (std::size_t i = 0; i < before.size(); ++i) {
      ASSERT_EQ(rig[i].plan.target, before[i].plan.target);
      ASSERT_EQ(rig[i].plan.reclaim, before[i].plan.reclaim);
      ASSERT_EQ(rig[i].plan.reuse, before[i].plan.reuse);
      ASSERT_EQ(rig[i].plan.aged, before[i].plan.aged);
    }
  }
}

TEST(BalanceTest, TheOrderOfTheRecordsDoesNotMatter) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    Rig rig = random_rig(random);
    Rig other = rig;
    std::shuffle(other.tenants.begin(), other.tenants.end(), random);
    ASSERT_EQ(rig.plan(), other.plan());
    for (std::size_t i = 0; i < rig.tenants.size(); ++i) {
      const auto same = std::find_if(other.tenants.begin(), other.tenants.end(),
                                     [&](const Tenant& t) { return t.id == rig[i].id; });
      ASSERT_EQ(rig[i].plan.target, same->plan.target);
      ASSERT_EQ(rig[i].plan.reclaim, same->plan.reclaim);
      ASSERT_EQ(rig[i].plan.reuse, same->plan.reuse);
      ASSERT_EQ(rig.grantable(i, 50),
                other.grantable(static_cast<std::size_t>(same - other.tenants.begin()), 50));
    }
  }
}

}  // namespace
}  // namespace kvcached::balance
