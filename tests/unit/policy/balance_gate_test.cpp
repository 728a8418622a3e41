// Who may go on using what it has, and who is not asked: the gate, and tenants that give nothing
// back.
#include <gtest/gtest.h>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

TEST(BalanceGateTest, NobodyAboveItsTargetReusesWhatAnotherWaitsFor) {
  Rig rig(1000);
  rig.add(800, 790).demand = Pages(100);
  rig.add(200, 200);
  rig.wish(1, 300);
  EXPECT_GT(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(500));
  EXPECT_FALSE(may_reuse(rig[0], Pages(1)));
  // Below its target it goes on.
  rig[0].used = Pages(400);
  EXPECT_TRUE(may_reuse(rig[0], Pages(100)));
  EXPECT_FALSE(may_reuse(rig[0], Pages(101)));
}

TEST(BalanceGateTest, OpenWhenWhatIsClaimedHasBeenFound) {
  Rig rig(1000);
  rig.add(800, 600);
  rig.add(200, 200);
  rig.wish(1, 90);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(90));
  EXPECT_TRUE(may_reuse(rig[0], Pages(110)));   // what is not asked back
  EXPECT_FALSE(may_reuse(rig[0], Pages(111)));  // nor on its way
  rig[0].leaving = Pages(100);
  rig.plan();
  EXPECT_TRUE(may_reuse(rig[0], Pages(100)));
  EXPECT_FALSE(may_reuse(rig[0], Pages(101)));
}

// It was its turn, and it got all it needs: more than its share, as most requests do where many
// share a pool.
TEST(BalanceGateTest, WhoseTurnItIsMayBeginBeyondItsTarget) {
  Rig rig(1000);
  rig.add(400, 0);
  rig.add(300, 300);
  rig.add(300, 300);
  rig.wish(0, 400);
  rig.wish(1, 400);
  rig.wish(2, 400);
  EXPECT_GT(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(333));
  EXPECT_TRUE(may_reuse(rig[0], Pages(400)));
  // Not while it has its share in use.
  rig[0].used = Pages(340);
  rig[0].want = Pages(60);
  EXPECT_GT(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(333));
  EXPECT_FALSE(may_reuse(rig[0], Pages(60)));
}

TEST(BalanceGateTest, AMinimumIsAlwaysReusable) {
  Rig rig(1000);
  rig.add(800, 100, 700).weight = 1;
  rig.add(200, 200).weight = 100;
  rig.wish(1, 900);
  EXPECT_GT(rig.plan(), Pages(0));
  EXPECT_TRUE(may_reuse(rig[0], Pages(600)));
  EXPECT_FALSE(may_reuse(rig[0], Pages(601)));
}

TEST(BalanceStoppedTest, NothingIsExpectedFromAStoppedProcess) {
  Rig rig(1000);
  rig.add(900, 0).stopped = true;
  rig.add(100, 100);
  rig.wish(1, 50);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(900));
  EXPECT_EQ(rig.target(1), Pages(100));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
}

// Who reports no idle pages, or cannot be held back, keeps what it has. Targets must be made of the
// rest, or others would wait for what never comes.
TEST(BalanceStoppedTest, WhatCannotComeBackIsNobodysTarget) {
  Rig rig(1000);
  rig.add(600, 0).elastic = false;
  rig.add(200, 0);
  rig.add(200, 200);
  rig.wish(1, 400, seconds(1));
  rig.wish(2, 150, seconds(6));
  EXPECT_EQ(rig.plan(), Pages(200));
  EXPECT_EQ(rig.target(0), Pages(600));
  EXPECT_EQ(rig.target(1), Pages(50));
  EXPECT_EQ(rig.target(2), Pages(350));
  EXPECT_EQ(rig.reclaim(1), Pages(150));
}

TEST(BalanceStoppedTest, ItsWishHoldsUpNobody) {
  Rig rig(1000);
  rig.add(500, 500).stopped = true;
  rig.add(400, 400);
  rig[0].demand = Pages(600);
  rig.wish(0, 500, seconds(60));
  rig.wish(1, 80, seconds(6));
  rig.plan();
  EXPECT_EQ(claim(rig[0]), Pages(0));
  EXPECT_FALSE(rig[0].plan.aged);
  EXPECT_TRUE(rig[1].plan.aged);
  EXPECT_EQ(rig.grantable(1, 80), Pages(80));
}

}  // namespace
}  // namespace kvcached::balance
