#include "shim/cache/stripe_index.hpp"

#include <gtest/gtest.h>

namespace kvcached::cache {
namespace {

TEST(StripeIndex, TakesFromTheFullestThenVacantThenDraining) {
  StripeIndex index(8);
  index.put_draining(0);
  EXPECT_EQ(index.to_acquire(), 0U);
  index.put_vacant(5);
  EXPECT_EQ(index.to_acquire(), 5U);
  index.put_partial(3, 10, 100);
  EXPECT_EQ(index.to_acquire(), 3U);
  index.put_partial(6, 90, 100);
  EXPECT_EQ(index.to_acquire(), 6U);
  index.put_nowhere(6);
  EXPECT_EQ(index.to_acquire(), 3U);
}

TEST(StripeIndex, BacksTheLowestAndDrainsTheHighest) {
  StripeIndex index(8);
  for (const std::size_t stripe : {2U, 4U, 6U}) index.put_scratch(stripe);
  for (const std::size_t stripe : {1U, 3U, 5U}) index.put_vacant(stripe);
  EXPECT_EQ(index.to_back(), 2U);
  EXPECT_EQ(index.to_drain(), 5U);
  index.put_vacant(2);
  index.put_scratch(5);
  EXPECT_EQ(index.to_back(), 4U);
  EXPECT_EQ(index.to_drain(), 3U);
}

TEST(StripeIndex, AStripeIsInOnePlace) {
  StripeIndex index(2);
  index.put_scratch(1);
  index.put_vacant(1);
  EXPECT_EQ(index.scratch(), 0U);
  EXPECT_EQ(index.vacant(), 1U);
  index.put_draining(1);
  EXPECT_EQ(index.vacant(), 0U);
  EXPECT_EQ(index.to_undrain(), 1U);
  EXPECT_EQ(index.next_draining(1), StripeIndex::kNone);
  index.put_nowhere(1);
  EXPECT_EQ(index.to_acquire(), StripeIndex::kNone);
  EXPECT_EQ(index.to_undrain(), StripeIndex::kNone);
}

}  // namespace
}  // namespace kvcached::cache
