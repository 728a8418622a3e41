#include "shim/cache/block_set.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace kvcached::cache {
namespace {

TEST(BlockSet, StartsEmpty) {
  const BlockSet set(130);
  EXPECT_FALSE(set.contains(0));
  EXPECT_FALSE(set.contains(129));
  EXPECT_EQ(set.first_gap({0, 130}), (BlockRange{0, 130}));
}

TEST(BlockSet, EmptyRangesAreInEverySet) {
  BlockSet set(128);
  EXPECT_TRUE(set.contains_all({64, 0}));
  EXPECT_TRUE(set.contains_all({65, 0}));
  set.insert({65, 0});
  EXPECT_FALSE(set.contains(65));
  EXPECT_EQ(set.first_gap({65, 0}).count, 0U);
}

TEST(BlockSet, GapEndsAtALiveBlockAndAtTheRange) {
  BlockSet set(200);
  set.insert({0, 70});
  set.insert({100, 10});
  EXPECT_EQ(set.first_gap({0, 200}), (BlockRange{70, 30}));
  EXPECT_EQ(set.first_gap({0, 80}), (BlockRange{70, 10}));
  EXPECT_EQ(set.first_gap({105, 95}), (BlockRange{110, 90}));
  EXPECT_EQ(set.first_gap({100, 10}).count, 0U);
}

TEST(BlockSet, AgreesWithAVectorOfBools) {
  std::mt19937 random(7);
  constexpr std::uint64_t kSize = 333;
  BlockSet set(kSize);
  std::vector<bool> model(kSize);
  for (int step = 0; step < 4000; ++step) {
    const std::uint64_t first = random() % kSize;
    const BlockRange range{first, random() % std::min<std::uint64_t>(kSize - first + 1, 140)};
    const bool insert = random() % 2 == 0;
    insert ? set.insert(range) : set.erase(range);
    for (std::uint64_t b = range.first; b < range.end(); ++b) model[b] = insert;

    const std::uint64_t from = random() % kSize;
    const BlockRange asked{from, random() % (kSize - from + 1)};
    bool all = true;
    BlockRange gap{asked.end(), 0};
    for (std::uint64_t b = asked.first; b < asked.end(); ++b) {
      all = all && model[b];
      if (!model[b] && (gap.count == 0 || gap.end() == b))
        gap = {gap.count == 0 ? b : gap.first, gap.count + 1};
    }
    ASSERT_EQ(set.contains_all(asked), all) << "step " << step;
    ASSERT_EQ(set.first_gap(asked).count, gap.count) << "step " << step;
    if (gap.count != 0) {
      ASSERT_EQ(set.first_gap(asked).first, gap.first) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace kvcached::cache
