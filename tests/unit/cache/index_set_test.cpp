#include "shim/cache/index_set.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace kvcached::cache {
namespace {

TEST(IndexSet, EmptyHasNeitherFirstNorLast) {
  for (const std::size_t size : {0U, 1U, 64U, 65U, 5000U}) {
    const IndexSet set(size);
    EXPECT_TRUE(set.empty());
    EXPECT_EQ(set.first(), IndexSet::kNone);
    EXPECT_EQ(set.last(), IndexSet::kNone);
  }
}

TEST(IndexSet, InsertingTwiceCountsOnce) {
  IndexSet set(10);
  set.insert(3);
  set.insert(3);
  EXPECT_EQ(set.count(), 1U);
  set.erase(3);
  set.erase(3);
  EXPECT_TRUE(set.empty());
}

class IndexSetModel : public testing::TestWithParam<std::size_t> {};

TEST_P(IndexSetModel, AgreesWithStdSet) {
  const std::size_t size = GetParam();
  std::mt19937 random(11);
  IndexSet set(size);
  std::set<std::size_t> model;
  for (int step = 0; step < 5000; ++step) {
    const std::size_t index = random() % size;
    if (random() % 5 < 2) {
      set.insert(index);
      model.insert(index);
    } else {
      set.erase(index);
      model.erase(index);
    }
    ASSERT_EQ(set.count(), model.size());
    ASSERT_EQ(set.contains(index), model.contains(index));
    ASSERT_EQ(set.first(), model.empty() ? IndexSet::kNone : *model.begin());
    ASSERT_EQ(set.last(), model.empty() ? IndexSet::kNone : *model.rbegin());
    const std::size_t from = random() % size;
    const auto next = model.upper_bound(from);
    ASSERT_EQ(set.next(from), next == model.end() ? IndexSet::kNone : *next);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, IndexSetModel, testing::Values(1, 63, 64, 65, 4096, 4097, 300000));

}  // namespace
}  // namespace kvcached::cache
