// Demand and warm stripes.
#include "policy/forecast.hpp"

#include <gtest/gtest.h>

namespace kvcached::forecast {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Instant at(double s) {
  return Instant(std::chrono::hours(1)) +
         std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

TEST(DemandTest, NothingSeenNothingExpected) { EXPECT_EQ(Demand().pages(), Pages(0)); }

TEST(DemandTest, SteadyUseIsItsOwnForecast) {
  Demand demand;
  for (int i = 0; i < 100; ++i) demand.sample(at(i), Pages(50));
  EXPECT_EQ(demand.pages(), Pages(50));
}

TEST(DemandTest, ShortSwingsCountOnTopOfTheTrend) {
  Demand demand;
  for (int i = 0; i < 400; ++i) demand.sample(at(0.1 * i), Pages(i % 2 == 0 ? 40 : 70));
  EXPECT_EQ(demand.pages(), Pages(70));
}

TEST(DemandTest, NeverMoreThanWasUsed) {
  Demand demand;
  demand.sample(at(0), Pages(10));
  demand.sample(at(1), Pages(90));   // a swing of 80
  demand.sample(at(10), Pages(90));  // and a trend of 90
  demand.sample(at(11), Pages(20));
  EXPECT_EQ(demand.pages(), Pages(90));
}

// One spike is remembered as a swing for some seconds, not as demand for a minute.
TEST(DemandTest, ASpikeIsForgottenSoon) {
  Demand demand;
  demand.sample(at(0), Pages(10));
  demand.sample(at(100), Pages(10));
  demand.sample(at(100.1), Pages(100));
  demand.sample(at(100.2), Pages(10));
  EXPECT_EQ(demand.pages(), Pages(100));
  demand.sample(at(110), Pages(10));
  EXPECT_EQ(demand.pages(), Pages(10));
}

TEST(DemandTest, ALevelThatWasHeldIsRememberedForAMinute) {
  Demand demand;
  for (int i = 0; i < 20; ++i) demand.sample(at(i), Pages(100));
  for (int i = 20; i < 70; ++i) demand.sample(at(i), Pages(10));
  EXPECT_EQ(demand.pages(), Pages(100));
  for (int i = 70; i < 90; ++i) demand.sample(at(i), Pages(10));
  EXPECT_EQ(demand.pages(), Pages(10));
}

// Use lasts until the next sample, though no sample falls into the epochs between.
TEST(DemandTest, SilenceMeansUnchanged) {
  Demand demand;
  demand.sample(at(0), Pages(80));
  demand.sample(at(50), Pages(80));
  demand.sample(at(51), Pages(5));
  EXPECT_EQ(demand.pages(), Pages(80));
  demand.sample(at(1000), Pages(5));
  EXPECT_EQ(demand.pages(), Pages(5));
}

TEST(SmootherstepTest, FallsFromOneToNothing) {
  EXPECT_EQ(falling_smootherstep(0), 1);
  EXPECT_EQ(falling_smootherstep(0.5), 0.5);
  EXPECT_EQ(falling_smootherstep(1), 0);
  EXPECT_GT(falling_smootherstep(0.1), 0.99);
  EXPECT_LT(falling_smootherstep(0.9), 0.01);
}

TEST(WarmTest, WhoTakesNothingKeepsNothing) {
  Warm warm(Pages(1));
  EXPECT_EQ(warm.low(at(0)), Pages(0));
  EXPECT_EQ(warm.high(at(0)), Pages(0));
  warm.took(at(1), Pages(10), Pages(0));
  EXPECT_EQ(warm.low(at(1)), Pages(15));
  EXPECT_EQ(warm.high(at(50)), Pages(31));
  EXPECT_EQ(warm.high(at(70)), Pages(0));
}

TEST(WarmTest, SizedByTheLargestBurstWithinARefill) {
  Warm warm(Pages(1));
  // Two together, one a second later: a refill takes 10 ms.
  warm.took(at(0), Pages(10), Pages(0));
  warm.took(at(0.005), Pages(10), Pages(0));
  warm.took(at(1), Pages(10), Pages(0));
  EXPECT_EQ(warm.low(at(1)), Pages(30));
}

TEST(WarmTest, SlowRefillsMakeLongerBursts) {
  Warm warm(Pages(1));
  for (int i = 0; i < 100; ++i) warm.refilled(milliseconds(400));
  for (int i = 0; i < 3; ++i) warm.took(at(0.1 * i), Pages(10), Pages(0));
  EXPECT_EQ(warm.low(at(1)), Pages(45));
}

TEST(WarmTest, WithinBoundsAndInWholeStripes) {
  Warm warm(Pages(1));
  warm.took(at(0), Pages(1), Pages(0));
  EXPECT_EQ(warm.low(at(0)), Pages(4));
  warm.took(at(0), Pages(1000), Pages(0));
  EXPECT_EQ(warm.low(at(0)), Pages(64));
  EXPECT_EQ(warm.high(at(0)), Pages(80));
  Warm coarse(Pages(24));
  coarse.took(at(0), Pages(20), Pages(0));
  EXPECT_EQ(coarse.low(at(0)), Pages(48));
  EXPECT_EQ(coarse.high(at(0)), Pages(72));
}

TEST(WarmTest, WhatWasFreedDecaysSmoothly) {
  Warm warm(Pages(1));
  warm.freed(at(0), Pages(1000));
  EXPECT_EQ(warm.keep(at(0), balance::Level::rest), Pages(1000));
  EXPECT_GT(warm.keep(at(1), balance::Level::rest), Pages(980));
  EXPECT_EQ(warm.keep(at(5), balance::Level::rest), Pages(500));
  EXPECT_LT(warm.keep(at(9), balance::Level::rest), Pages(20));
  EXPECT_EQ(warm.keep(at(10.1), balance::Level::rest), Pages(0));
}

TEST(WarmTest, FourTimesAsFastWhereThePoolIsShort) {
  Warm warm(Pages(1));
  warm.freed(at(0), Pages(1000));
  warm.keep(at(0), balance::Level::brisk);
  EXPECT_EQ(warm.keep(at(1.25), balance::Level::brisk), Pages(500));
  EXPECT_EQ(warm.keep(at(2.6), balance::Level::brisk), Pages(0));
}

TEST(WarmTest, OnlyWhatRefillingNeedsWhereThePoolIsTight) {
  Warm warm(Pages(1));
  warm.took(at(0), Pages(10), Pages(0));
  warm.freed(at(0), Pages(1000));
  EXPECT_EQ(warm.keep(at(0), balance::Level::tight), Pages(15));
  EXPECT_EQ(warm.keep(at(0), balance::Level::bare), Pages(0));
  EXPECT_EQ(warm.keep(at(0), balance::Level::rest), Pages(31));
}

TEST(WarmTest, WhatIsUsedAgainIsNotKeptTwice) {
  Warm warm(Pages(1), {Pages(0), Pages(0), Pages(0), seconds(10)});
  warm.freed(at(0), Pages(100));
  warm.freed(at(1), Pages(50));
  warm.took(at(1), Pages(80), Pages(60));
  EXPECT_EQ(warm.keep(at(1.01), balance::Level::rest), Pages(89));
}

TEST(WarmTest, SurplusInWholeStripes) {
  Warm warm(Pages(8), {Pages(0), Pages(0), Pages(0), seconds(10)});
  warm.freed(at(0), Pages(40));
  EXPECT_EQ(warm.keep(at(5), balance::Level::rest), Pages(16));
}

TEST(WarmTest, KeepsTheScore) {
  Warm warm(Pages(1));
  warm.took(at(0), Pages(10), Pages(4));
  warm.took(at(0), Pages(3), Pages(9));
  warm.released(Pages(7));
  EXPECT_EQ(warm.score().hits, 7U);
  EXPECT_EQ(warm.score().misses, 6U);
  EXPECT_EQ(warm.score().vain, 7U);
}

}  // namespace
}  // namespace kvcached::forecast
