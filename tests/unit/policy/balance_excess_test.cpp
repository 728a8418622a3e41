// A pool or a maximum made smaller, a minimum made larger: what must come back though nobody waits.
#include <gtest/gtest.h>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

TEST(BalanceExcess, IdlePagesAboveAMaximum) {
  Rig rig(100);
  rig.add(80, 10).max = Pages(30);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(50));
  EXPECT_EQ(rig[0].plan.reuse, Pages(30));
}

TEST(BalanceExcess, WhatIsInUseAboveAMaximumIsGatedOnly) {
  Rig rig(100);
  rig.add(80, 70).max = Pages(30);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(10));
  EXPECT_EQ(rig[0].plan.reuse, Pages(30));
}

TEST(BalanceExcess, WholeStripesButNotBelowTheMinimum) {
  Rig rig(100);
  Tenant& t = rig.add(80, 0, 28);
  t.max = Pages(30);
  t.stripe = Pages(8);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(48)) << "56 would leave less than the minimum";
}

TEST(BalanceExcess, APoolMadeSmallerTakesIdlePagesTheCostliestFirst) {
  Rig rig(100);
  rig.add(50, 45);
  rig.add(40, 0);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0) + rig.reclaim(1), Pages(0));
  rig.pool.size = Pages(70);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.reclaim(1), Pages(20));
  EXPECT_EQ(overdrawn(rig.pool, rig.tenants), Pages(20));
}

TEST(BalanceExcess, WhatIsOnItsWayBackCounts) {
  Rig rig(100);
  rig.add(90, 0).leaving = Pages(15);
  rig.pool.size = Pages(70);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(5));
}

TEST(BalanceExcess, AMinimumIsCoveredAheadOfItsUse) {
  Rig rig(100);
  rig.add(90, 30);
  rig.add(0, 0, 40);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(30));
}

TEST(BalanceExcess, AMinimumItselfIsNotTaken) {
  Rig rig(100);
  rig.add(60, 0, 60);
  rig.add(40, 10);
  rig.pool.size = Pages(65);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.reclaim(1), Pages(30));
}

// Else it would keep them for ever: its wish does not fit into the pool any more.
TEST(BalanceExcess, WhatIsHeldForAWishIsTakenAtLast) {
  Rig rig(100);
  rig.add(80, 0);
  rig.wish(0, 90);
  rig.pool.size = Pages(40);
  rig.plan();
  EXPECT_EQ(rig.reclaim(0), Pages(40));
}

TEST(BalanceExcess, WhatCannotBeFoundGatesWhoIsAboveItsShare) {
  Rig rig(100);
  rig.add(60, 60);
  rig.add(30, 30);
  rig.pool.size = Pages(70);
  EXPECT_EQ(rig.plan(), Pages(20));
  EXPECT_LT(rig[0].plan.reuse, Pages(60));
  EXPECT_GE(rig[1].plan.reuse, Pages(30));
}

}  // namespace
}  // namespace kvcached::balance
