#include "bench/engine/blocks.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "bench/engine/percentile.hpp"

namespace kvcached::engine {
namespace {

TEST(StaticBlocks, GivesEachBlockOnce) {
  StaticBlocks blocks(10, 640);
  EXPECT_EQ(blocks.available(), 10U);
  EXPECT_EQ(blocks.resident_bytes(), 640U);
  std::vector<BlockNumber> taken;
  EXPECT_EQ(blocks.take(4, false, taken), 4U);
  EXPECT_EQ(blocks.take(7, true, taken), 6U);
  EXPECT_EQ(blocks.take(1, true, taken), 0U);
  EXPECT_EQ(std::set<BlockNumber>(taken.begin(), taken.end()).size(), 10U);
  EXPECT_EQ(*std::max_element(taken.begin(), taken.end()), 9U);
  blocks.give_back({taken[3]});
  EXPECT_EQ(blocks.available(), 1U);
}

TEST(AsRanges, JoinsNeighbours) {
  const std::vector<kvcached_range> ranges = as_ranges({7, 3, 4, 9, 5, 8});
  ASSERT_EQ(ranges.size(), 2U);
  EXPECT_EQ(ranges[0].first, 3U);
  EXPECT_EQ(ranges[0].count, 3U);
  EXPECT_EQ(ranges[1].first, 7U);
  EXPECT_EQ(ranges[1].count, 3U);
  EXPECT_TRUE(as_ranges({}).empty());
}

TEST(Percentile, IsTheNearestRank) {
  const std::vector<std::uint64_t> values{5, 1, 4, 2, 3};
  EXPECT_EQ(percentile(values, 0.0), 1U);
  EXPECT_EQ(percentile(values, 0.5), 3U);
  EXPECT_EQ(percentile(values, 0.8), 4U);
  EXPECT_EQ(percentile(values, 0.99), 5U);
  EXPECT_EQ(percentile(values, 1.0), 5U);
  EXPECT_EQ(percentile({}, 0.5), 0U);
}

}  // namespace
}  // namespace kvcached::engine
