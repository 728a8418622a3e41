// Water-filling, and the levels of a pool.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

Tenant bounds(std::uint64_t low, std::uint64_t high, std::uint32_t weight = 1) {
  Tenant t;
  t.weight = weight;
  t.plan.low = Pages(low);
  t.plan.high = Pages(high);
  return t;
}

std::vector<std::uint64_t> filled(std::vector<Tenant> tenants, std::uint64_t goal) {
  fill(tenants, Pages(goal));
  std::vector<std::uint64_t> targets;
  for (const Tenant& t : tenants) targets.push_back(t.plan.target.value);
  return targets;
}

using Targets = std::vector<std::uint64_t>;

TEST(FillTest, SharesByWeight) {
  EXPECT_EQ(filled({bounds(0, 100), bounds(0, 100)}, 60), (Targets{30, 30}));
  EXPECT_EQ(filled({bounds(0, 100, 1), bounds(0, 100, 2)}, 60), (Targets{20, 40}));
}

TEST(FillTest, WhoWantsLessLeavesTheRestToOthers) {
  EXPECT_EQ(filled({bounds(0, 10), bounds(0, 100), bounds(0, 100)}, 90), (Targets{10, 40, 40}));
}

TEST(FillTest, WhoIsOwedMoreTakesItFromOthers) {
  EXPECT_EQ(filled({bounds(50, 100), bounds(0, 100), bounds(0, 100)}, 90), (Targets{50, 20, 20}));
}

TEST(FillTest, BoundsOfBothSidesAtOnce) {
  // Settling the small wish first would push the one with a minimum below its fair share.
  EXPECT_EQ(filled({bounds(0, 5), bounds(40, 100), bounds(0, 100)}, 90), (Targets{5, 42, 42}));
  EXPECT_EQ(filled({bounds(0, 25), bounds(60, 100), bounds(0, 100)}, 90), (Targets{15, 60, 15}));
}

TEST(FillTest, NothingToShareAndNobodyThere) {
  EXPECT_EQ(filled({bounds(0, 5), bounds(0, 5)}, 0), (Targets{0, 0}));
  EXPECT_EQ(filled({}, 0), Targets{});
}

// One level for all: whoever is inside its bounds has weight times it, whoever is not would be on
// the other side of its bound.
TEST(FillTest, IsALevelWhateverTheBounds) {
  std::mt19937 random(1);
  const auto upto = [&](std::uint64_t n) { return random() % (n + 1); };
  for (int round = 0; round < 2000; ++round) {
    std::vector<Tenant> tenants;
    std::uint64_t lows = 0;
    std::uint64_t highs = 0;
    for (std::uint64_t n = 1 + upto(20); n > 0; --n) {
      const std::uint64_t low = upto(100);
      tenants.push_back(bounds(low, low + upto(200), static_cast<std::uint32_t>(1 + upto(5))));
      lows += low;
      highs += tenants.back().plan.high.value;
    }
    const std::uint64_t goal = lows + upto(highs - lows);
    fill(tenants, Pages(goal));
    std::uint64_t sum = 0;
    double most_below = 0;      // the level is at least this, by those that could still fall
    double least_above = 1e18;  // and at most this, by those that could still rise
    for (const Tenant& t : tenants) {
      sum += t.plan.target.value;
      ASSERT_GE(t.plan.target, t.plan.low);
      ASSERT_LE(t.plan.target, t.plan.high);
      const double level = static_cast<double>(t.plan.target.value);
      if (t.plan.target > t.plan.low) most_below = std::max(most_below, level / t.weight);
      if (t.plan.target < t.plan.high) {
        least_above = std::min(least_above, (level + 1) / t.weight);
      }
    }
    ASSERT_LE(sum, goal);
    ASSERT_GT(sum + tenants.size(), goal);
    // Shares are rounded down to pages before they are compared with the bounds.
    ASSERT_LE(most_below, least_above + 1) << "round " << round;
  }
}

TEST(FillTest, LargestPoolsAndWeights) {
  std::vector<Tenant> tenants(kMostTenants, bounds(0, kMostPages.value, kMostWeight));
  fill(tenants, kMostPages);
  EXPECT_EQ(tenants.front().plan.target, kMostPages / kMostTenants);
}

TEST(LevelTest, EnteredBelowItsMarkAndLeftAPointHigher) {
  const auto from = [](Level before, std::uint64_t spare) {
    return level_at(before, Pages(spare), Pages(1000));
  };
  EXPECT_EQ(from(Level::rest, 40), Level::rest);
  EXPECT_EQ(from(Level::rest, 39), Level::brisk);
  EXPECT_EQ(from(Level::brisk, 59), Level::brisk);
  EXPECT_EQ(from(Level::brisk, 60), Level::rest);
  EXPECT_EQ(from(Level::brisk, 20), Level::brisk);
  EXPECT_EQ(from(Level::brisk, 19), Level::tight);
  EXPECT_EQ(from(Level::tight, 29), Level::tight);
  EXPECT_EQ(from(Level::tight, 30), Level::brisk);
  EXPECT_EQ(from(Level::tight, 10), Level::tight);
  EXPECT_EQ(from(Level::tight, 9), Level::bare);
  EXPECT_EQ(from(Level::bare, 19), Level::bare);
  EXPECT_EQ(from(Level::bare, 20), Level::tight);
  EXPECT_EQ(from(Level::bare, 1000), Level::rest);
}

}  // namespace
}  // namespace kvcached::balance
