// The aged claim: who it is, what it is given, and when its turn is over.
#include <gtest/gtest.h>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

TEST(BalanceAgingTest, TheOldestOfThoseThatWaitedLongEnoughComesFirst) {
  Rig rig(1000);
  for (int i = 0; i < 4; ++i) rig.add(250, 250);
  rig.wish(0, 300, seconds(2));
  rig.wish(1, 300, seconds(7));
  rig.wish(2, 300, seconds(8));
  rig.wish(3, 300, seconds(5));  // not longer than the age
  rig.plan();
  EXPECT_TRUE(rig[2].plan.aged);
  EXPECT_EQ(rig.target(2), Pages(550));
  for (const std::size_t i : {0U, 1U, 3U}) {
    EXPECT_FALSE(rig[i].plan.aged);
    EXPECT_EQ(rig.target(i), Pages(150));
  }
}

TEST(BalanceAgingTest, MinimumsStay) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.add(500, 0, 300);
  rig.wish(0, 900, seconds(6));
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(700));
  EXPECT_EQ(rig.reclaim(1), Pages(200));
}

// Its wish exceeds what it can ever have. It must not keep the others from their turn.
TEST(BalanceAgingTest, WhoIsAtItsCeilingIsPassedOver) {
  Rig rig(1000);
  rig.add(600, 600).max = Pages(600);
  rig.add(200, 200);
  rig.add(200, 200, 100);
  rig.wish(0, 10, seconds(20));
  rig.wish(1, 100, seconds(10));
  rig.plan();
  EXPECT_FALSE(rig[0].plan.aged);
  EXPECT_TRUE(rig[1].plan.aged);
  rig[1].max = Pages(202);
  rig[1].stripe = Pages(4);  // two pages of room are less than a stripe
  rig.plan();
  EXPECT_FALSE(rig[1].plan.aged);
}

// Its maximum was lowered while it waited: all it wants is at hand, and it may not have it.
TEST(BalanceAgingTest, WhoMayNotHaveWhatItHoldsIsPassedOver) {
  Rig rig(1000);
  rig.add(300, 100);
  rig.add(700, 700);
  rig.wish(0, 200, seconds(6));
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  rig[0].max = Pages(299);
  rig.plan();
  EXPECT_FALSE(rig[0].plan.aged);
  EXPECT_LE(rig.target(0), Pages(299));
}

TEST(BalanceAgingTest, WhoseTurnIsOverGoesBehindOthers) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.add(500, 500);
  rig.wish(0, 400, seconds(6));
  rig.wish(1, 100, seconds(6));
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  rig.now += seconds(30);
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  rig.now += seconds(1);
  rig.plan();
  EXPECT_FALSE(rig[0].plan.aged);
  EXPECT_TRUE(rig[1].plan.aged);
  // Then the other again, which began to wait anew before this one did.
  rig.now += seconds(31);
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  // A new wish has its own time.
  rig.wish(0, 400, seconds(6));
  rig.plan();
  EXPECT_EQ(rig[0].plan.queued, rig[0].since);
}

// Older ones do not take it away, or two could hinder each other for ever.
TEST(BalanceAgingTest, ATurnIsNotInterrupted) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.add(500, 500).max = Pages(500);
  rig.wish(0, 100, seconds(6));
  rig.wish(1, 100, seconds(9));
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  rig[1].max = Pages(600);
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  EXPECT_FALSE(rig[1].plan.aged);
}

// Between the grant and the use of the pages there may be a plan.
TEST(BalanceAgingTest, WhatItWasGrantedItMayUse) {
  Rig rig(1000);
  rig.add(600, 300);
  rig.add(400, 400);
  rig.wish(0, 300, seconds(6));
  rig.wish(1, 300);
  rig.plan();
  EXPECT_TRUE(rig[0].plan.aged);
  EXPECT_TRUE(may_reuse(rig[0], Pages(300)));
}

// What somebody has waited for comes before what somebody may need.
TEST(BalanceAgingTest, AForecastKeepsNothingFromTheAgedClaim) {
  Rig rig(1000);
  rig.add(600, 100, 200).demand = Pages(600);
  rig.add(330, 0, 300).stripe = Pages(40);  // can spare less than a stripe
  rig.add(70, 70);
  rig.wish(2, 60, seconds(6));
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(0), Pages(570));
  EXPECT_EQ(rig.reclaim(0), Pages(60));
  rig[0].min = Pages(550);
  EXPECT_EQ(rig.plan(), Pages(10));
  EXPECT_EQ(rig.reclaim(0), Pages(50));
}

// One that is not aged is met as a whole or not at all; the aged one takes what it can get.
TEST(BalanceAgingTest, OnlyTheAgedClaimIsMetInPart) {
  Rig rig(1000);
  rig.add(300, 0, 100);
  rig.add(500, 500);
  rig.add(195, 195);
  rig.wish(1, 300);
  EXPECT_EQ(rig.plan(), Pages(300));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.grantable(1, 300), Pages(0));
  rig.wish(1, 300, seconds(6));
  EXPECT_EQ(rig.plan(), Pages(95));
  EXPECT_EQ(rig.reclaim(0), Pages(200));
  EXPECT_EQ(rig.grantable(1, 300), Pages(5));
}

}  // namespace
}  // namespace kvcached::balance
