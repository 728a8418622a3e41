// What the pool gives, promises, and takes back when the driver has less.
#include <gtest/gtest.h>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

TEST(BalanceGrantTest, UpToTheMaximum) {
  Rig rig(1000);
  rig.add(10, 10).max = Pages(30);
  rig.wish(0, 100);
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 100), Pages(20));
}

TEST(BalanceGrantTest, OthersFloorsStay) {
  Rig rig(1000);
  rig.add(0, 0);
  rig.add(100, 0, 600);
  // All but the floor of 500 and two per cent.
  rig.wish(0, 380);
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 380), Pages(380));
  rig[1].used = Pages(100);
  rig.wish(0, 381);
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 381), Pages(0));
}

TEST(BalanceGrantTest, LimboCountsTowardsTheFloor) {
  Rig rig(1000);
  rig.add(0, 0);
  rig.add(100, 0, 600).limbo = Pages(200);
  rig.pool.limbo = Pages(200);
  EXPECT_EQ(free_pages(rig.pool, rig.tenants), Pages(700));
  EXPECT_EQ(spare_pages(rig.pool, rig.tenants), Pages(400));
}

TEST(BalanceGrantTest, TheMinimumIsUnconditional) {
  Rig rig(100);
  rig.add(90, 90);
  rig.add(0, 0, 10);
  rig.wish(0, 50, seconds(60));
  rig.plan();
  EXPECT_EQ(rig.pool.level, Level::bare);
  EXPECT_EQ(rig.grantable(1, 20), Pages(10));
}

TEST(BalanceGrantTest, OlderClaimsComeFirst) {
  Rig rig(1000);
  for (int i = 0; i < 3; ++i) rig.add(200, 200);
  rig.wish(0, 150, seconds(1));
  rig.wish(1, 250, seconds(3));
  rig.wish(2, 130, seconds(2));
  rig.plan();
  // 400 are free, and two per cent are left alone.
  EXPECT_EQ(rig.grantable(0, 150), Pages(0));
  EXPECT_EQ(rig.grantable(1, 250), Pages(250));
  EXPECT_EQ(rig.grantable(2, 130), Pages(130));
}

// Else the pages would lie there for nothing. Once the older one is aged, it is not passed any
// more.
TEST(BalanceGrantTest, AClaimThatCannotBeMetIsPassedOver) {
  Rig rig(1000);
  for (int i = 0; i < 2; ++i) rig.add(300, 300);
  rig.wish(0, 380, seconds(1));
  rig.wish(1, 450, seconds(4));
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 380), Pages(380));
  EXPECT_EQ(rig.grantable(1, 450), Pages(0));
  rig.wish(1, 450, seconds(6));
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 380), Pages(0));
  EXPECT_EQ(rig.grantable(1, 450), Pages(400));
}

// A share of many tenants is less than what a request needs.
TEST(BalanceGrantTest, AWishIsMetAsAWhole) {
  Rig rig(1000);
  rig.add(0, 0);
  rig.add(600, 600);
  rig.add(200, 200);
  rig.wish(0, 180);
  rig.wish(1, 900);
  rig.wish(2, 900);
  rig[1].weight = 8;
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(100));
  EXPECT_EQ(rig.grantable(0, 180), Pages(180));
  // But only one at a time.
  EXPECT_EQ(grant(rig.pool, rig.tenants, 0, Pages(180)), Pages(180));
  rig[0].used = Pages(180);
  rig.wish(0, 5);
  rig.plan();
  EXPECT_EQ(claim(rig[0]), Pages(0));
}

// What a grant used up is not granted once more before the next plan.
TEST(BalanceGrantTest, OffersAndOpenPagesAreSpentOnce) {
  Rig rig(1000);
  rig.add(200, 200);
  rig.add(200, 200);
  rig.wish(0, 300);
  rig.plan();
  EXPECT_EQ(grant(rig.pool, rig.tenants, 0, Pages(300)), Pages(300));
  EXPECT_EQ(rig[0].plan.offer, Pages(0));
  // 600 were free, 20 are kept back.
  EXPECT_EQ(grant(rig.pool, rig.tenants, 1, Pages(200)), Pages(200));
  EXPECT_EQ(rig.grantable(1, 200), Pages(80));
}

TEST(BalanceGrantTest, AmongEquallyOldTheSmallerIdComesFirst) {
  Rig rig(1000);
  for (int i = 0; i < 2; ++i) rig.add(400, 400);
  rig.wish(0, 150);
  rig.wish(1, 150);
  std::swap(rig[0].id, rig[1].id);
  rig.plan();
  EXPECT_EQ(rig.grantable(1, 150), Pages(150));
  EXPECT_EQ(rig.grantable(0, 150), Pages(0));
}

// A claim's own floor is there for it already: setting the pages aside twice would idle them.
TEST(BalanceGrantTest, FloorsOfOlderClaimsAreNotSetAsideTwice) {
  Rig rig(1000);
  rig.add(0, 0, 400);
  rig.add(400, 400);
  rig.wish(0, 400, seconds(4));
  rig.wish(1, 300, seconds(1));
  rig.plan();
  EXPECT_EQ(rig.grantable(1, 150), Pages(150));
}

TEST(BalanceGrantTest, WishesLeaveTwoPerCentButTheAgedOne) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.add(450, 450);
  rig.wish(1, 30);
  rig.plan();
  EXPECT_EQ(rig.grantable(1, 30), Pages(30));
  rig.wish(1, 31);
  rig.plan();
  EXPECT_EQ(rig.grantable(1, 31), Pages(0));
  rig.wish(1, 50);
  rig.plan();
  EXPECT_EQ(rig.grantable(1, 50), Pages(0));
  rig.wish(1, 50, seconds(6));
  rig.plan();
  EXPECT_EQ(rig.grantable(1, 50), Pages(50));
}

// Its engine could not wait for them, and would throw away what is done.
TEST(BalanceGrantTest, WorkThatRunsGrowsIntoWhatWishesLeave) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.add(450, 450);
  rig.wish(1, 30);
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 30, Purpose::ahead), Pages(0));
  EXPECT_EQ(rig.grantable(0, 30, Purpose::running), Pages(10));  // 30 offered, one per cent left
  EXPECT_EQ(grant(rig.pool, rig.tenants, 0, Pages(10), Purpose::running), Pages(10));
  EXPECT_EQ(rig.grantable(1, 30), Pages(30));
}

TEST(BalanceGrantTest, AnOfferIsForTheWishAlone) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.wish(0, 480);
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 480, Purpose::ahead), Pages(0));
  EXPECT_EQ(rig.grantable(0, 480, Purpose::running), Pages(10));
  EXPECT_EQ(rig.grantable(0, 480), Pages(480));
}

TEST(BalanceGrantTest, BeyondTheTargetOnlyWhatNobodyClaims) {
  Rig rig(1000);
  rig.add(100, 100);
  rig.add(100, 100);
  rig.wish(1, 300);
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(100));
  // 800 free, 300 claimed, 20 kept back.
  EXPECT_EQ(rig.grantable(0, 800), Pages(480));
}

TEST(BalanceGrantTest, BeyondTheTargetOnlyWhereThereIsPlenty) {
  Rig rig(1000);
  rig.add(500, 500);
  rig.add(475, 475);
  rig.plan();
  EXPECT_EQ(rig.pool.level, Level::brisk);
  EXPECT_EQ(rig.grantable(0, 5), Pages(5));
  rig[1].charged = rig[1].used = Pages(481);
  rig.plan();
  EXPECT_EQ(rig.pool.level, Level::tight);
  rig[1].charged = rig[1].used = Pages(475);
  rig.plan();
  EXPECT_EQ(rig.pool.level, Level::tight);
  EXPECT_EQ(rig.grantable(0, 5), Pages(0));
  // Up to a target it may be.
  rig[0].demand = Pages(503);
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 5), Pages(3));
}

TEST(BalanceGrantTest, WholeStripesOrNothing) {
  Rig rig(1000);
  rig.add(0, 0).stripe = Pages(64);
  rig.add(800, 800);
  rig.wish(0, 100);
  rig.plan();
  EXPECT_EQ(missing(rig[0]), Pages(128));
  EXPECT_EQ(rig.grantable(0, 128), Pages(128));
  EXPECT_EQ(rig.grantable(0, 100), Pages(64));
  EXPECT_EQ(rig.grantable(0, 63), Pages(0));
}

TEST(BalanceGrantTest, BooksWhatItGivesAndWhatComesBack) {
  Rig rig(1000);
  rig.add(10, 10);
  rig.wish(0, 20);
  rig.plan();
  EXPECT_FALSE(may_reuse(rig[0], Pages(1)));
  EXPECT_EQ(grant(rig.pool, rig.tenants, 0, Pages(20)), Pages(20));
  EXPECT_EQ(rig[0].charged, Pages(30));
  EXPECT_TRUE(may_reuse(rig[0], Pages(20)));
  give_back(rig[0], Pages(20));
  EXPECT_EQ(rig[0].charged, Pages(10));
  EXPECT_FALSE(may_reuse(rig[0], Pages(1)));
}

TEST(BalancePromiseTest, WhatTheOthersLeave) {
  Rig rig(1000);
  rig.add(100, 100, 300);
  rig.add(0, 0);
  EXPECT_TRUE(may_promise(rig.pool, rig.tenants, 1, Pages(700)));
  EXPECT_FALSE(may_promise(rig.pool, rig.tenants, 1, Pages(701)));
  // Its own pages and those of its dead are its own already.
  rig[1].charged = Pages(50);
  rig[1].limbo = rig.pool.limbo = Pages(50);
  EXPECT_TRUE(may_promise(rig.pool, rig.tenants, 1, Pages(700)));
  EXPECT_FALSE(may_promise(rig.pool, rig.tenants, 1, Pages(701)));
}

// Each would be kept from the last pages for the other's sake.
TEST(BalanceShortfallTest, FloorsThatAreNotCoveredShrinkInProportion) {
  Rig rig(1000);
  rig.add(0, 0, 400);
  rig.add(0, 0, 600);
  rig.pool.shortfall = Pages(500);
  rig.wish(0, 400);
  rig.wish(1, 600);
  rig.plan();
  EXPECT_EQ(rig.target(0), Pages(200));
  EXPECT_EQ(rig.target(1), Pages(300));
  EXPECT_EQ(rig.grantable(0, 400), Pages(200));
  EXPECT_EQ(rig.grantable(1, 600), Pages(300));
}

}  // namespace
}  // namespace kvcached::balance
