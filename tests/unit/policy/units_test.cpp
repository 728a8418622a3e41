#include "policy/units.hpp"

#include <gtest/gtest.h>

#include "policy/clock.hpp"

namespace kvcached {
namespace {

TEST(UnitsTest, PagesRoundUpAndDown) {
  EXPECT_EQ(pages_up(Bytes(0)), Pages(0));
  EXPECT_EQ(pages_up(Bytes(1)), Pages(1));
  EXPECT_EQ(pages_up(kPageSize), Pages(1));
  EXPECT_EQ(pages_up(kPageSize + Bytes(1)), Pages(2));
  EXPECT_EQ(pages_down(kPageSize * 2 - Bytes(1)), Pages(1));
  EXPECT_EQ(pages_up(Bytes::max()), Pages(1ULL << 43));
  EXPECT_EQ(bytes_of(Pages(3)), Bytes(6ULL << 20));
}

TEST(UnitsTest, ClampedSubtractionStopsAtZero) {
  EXPECT_EQ(Pages(3).minus_clamped(Pages(5)), Pages(0));
  EXPECT_EQ(Pages(5).minus_clamped(Pages(3)), Pages(2));
  EXPECT_EQ(Pages(5).minus_clamped(Pages::max()), Pages(0));
}

TEST(UnitsTest, QuantitiesCompareAndCount) {
  EXPECT_LT(Pages(1), Pages(2));
  EXPECT_FALSE(Pages(0));
  EXPECT_TRUE(Pages(1));
  EXPECT_EQ(Bytes(7) / Bytes(2), 3U);
  EXPECT_EQ(Bytes(7) / 2, Bytes(3));
}

TEST(ClockTest, SteadyClockNeverGoesBack) {
  const Instant before = steady_clock().now();
  EXPECT_GE(steady_clock().now(), before);
  EXPECT_GT(before.time_since_epoch().count(), 0);
}

}  // namespace
}  // namespace kvcached
