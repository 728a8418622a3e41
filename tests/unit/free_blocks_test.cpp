#include "shim/adapters/free_blocks.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <deque>
#include <random>
#include <set>
#include <vector>

namespace kvcached::adapters {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Block = FreeBlocks::Block;
using End = FreeBlocks::End;

std::vector<Block> take(FreeBlocks& blocks, std::size_t count) {
  std::vector<Block> taken(count);
  EXPECT_TRUE(blocks.take(count, taken.data()));
  return taken;
}

FreeBlocks four_stripes_of_four() { return FreeBlocks(std::array<Block, 4>{4, 4, 4, 4}); }

TEST(FreeBlocks, HaveNoneUntilThereIsMemory) {
  FreeBlocks blocks = four_stripes_of_four();
  Block out = 0;
  EXPECT_EQ(blocks.free(), 0u);
  EXPECT_FALSE(blocks.take(1, &out));
  EXPECT_THAT(blocks.empty(), IsEmpty());
  EXPECT_FALSE(blocks.give(0, false, End::back));
}

TEST(FreeBlocks, AreTakenAllOrNone) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({4, 4}));
  std::vector<Block> out(5);
  EXPECT_FALSE(blocks.take(5, out.data()));
  EXPECT_THAT(take(blocks, 4), ElementsAre(4, 5, 6, 7));
}

TEST(FreeBlocks, ComeFromTheFullestStripeByItsShareNotBySize) {
  FreeBlocks blocks(std::array<Block, 2>{2, 10});
  ASSERT_TRUE(blocks.add({0, 2}) && blocks.add({2, 10}));
  take(blocks, 12);
  for (Block block : {0u, 2u, 3u, 4u}) ASSERT_TRUE(blocks.give(block, false, End::back));
  // Half of the small stripe is free, three tenths of the large one.
  EXPECT_THAT(take(blocks, 4), ElementsAre(4, 3, 2, 0));
}

TEST(FreeBlocks, GiveCachedOnesLastAndTheOldestFirst) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({0, 4}));
  take(blocks, 4);
  blocks.give(2, true, End::back);
  blocks.give(0, true, End::back);
  blocks.give(3, true, End::front);
  blocks.give(1, false, End::back);
  EXPECT_THAT(blocks.all(), ElementsAre(1, 3, 2, 0));
  EXPECT_THAT(take(blocks, 4), ElementsAre(1, 3, 2, 0));
}

TEST(FreeBlocks, OfACondemnedStripeAreAsideUntilItIsWithdrawnOrPardoned) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({0, 4}) && blocks.add({4, 4}));
  take(blocks, 8);
  for (Block block : {0u, 1u, 2u, 4u}) blocks.give(block, block == 2, End::back);
  blocks.condemn(1, 100, 1);  // one live block in the first stripe, three in the second
  EXPECT_TRUE(blocks.is_condemned(0));
  EXPECT_EQ(blocks.aside(), 3u);
  EXPECT_THAT(blocks.all(), ElementsAre(4));
  ASSERT_TRUE(blocks.give(3, true, End::back));
  EXPECT_THAT(blocks.empty(), ElementsAre(0));
  std::vector<FreeBlocks::Range> gone;
  ASSERT_TRUE(blocks.withdraw(0, gone));
  EXPECT_THAT(gone, ElementsAre(FreeBlocks::Range{0, 4}));
  EXPECT_EQ(blocks.aside() + blocks.condemned(), 0u);

  blocks.condemn(1, 100, 1);
  EXPECT_THAT(blocks.pardon(), ElementsAre(4));
  EXPECT_TRUE(blocks.give(4, false, End::back));
  EXPECT_EQ(blocks.free(), 1u);
}

TEST(FreeBlocks, OfStripesBeyondWhatCanBeSparedNoneAreCondemned) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({0, 4}) && blocks.add({4, 2}) && blocks.add({8, 4}));
  take(blocks, 10);
  for (Block block : {0u, 1u, 2u, 4u, 8u}) blocks.give(block, false, End::back);
  blocks.condemn(3, 3, 1);  // the emptiest has four; the next two
  EXPECT_FALSE(blocks.is_condemned(0));
  EXPECT_TRUE(blocks.is_condemned(1));
  blocks.condemn(3, 5, 2);
  EXPECT_EQ(blocks.condemned(), 1u);
  blocks.condemn(3, 6, 2);
  EXPECT_TRUE(blocks.is_condemned(0));
}

TEST(FreeBlocks, WhoseMemoryComesWhileTheirStripeIsCondemnedAreAside) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({0, 2}));
  take(blocks, 1);
  blocks.condemn(1, 100, 1);
  ASSERT_TRUE(blocks.add({2, 2}));
  EXPECT_EQ(blocks.free(), 0u);
  EXPECT_EQ(blocks.aside(), 3u);
}

TEST(FreeBlocks, OfSeveralStripesAreAddedAtOnceAndWithdrawnOneByOne) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({2, 8}));
  EXPECT_EQ(blocks.free(), 8u);
  EXPECT_EQ(blocks.held(0), 2u);
  EXPECT_EQ(blocks.held(1), 4u);
  EXPECT_THAT(blocks.ranges(2), ElementsAre(FreeBlocks::Range{8, 2}));
  EXPECT_THAT(take(blocks, 2), ElementsAre(2, 3));
  std::vector<FreeBlocks::Range> gone;
  EXPECT_FALSE(blocks.withdraw(0, gone));
  EXPECT_TRUE(blocks.withdraw(1, gone));
  EXPECT_THAT(gone, ElementsAre(FreeBlocks::Range{4, 4}));
}

TEST(FreeBlocks, AreAddedOnceAndAllOrNone) {
  FreeBlocks blocks = four_stripes_of_four();
  ASSERT_TRUE(blocks.add({1, 2}));
  for (const FreeBlocks::Range& range : std::initializer_list<FreeBlocks::Range>{
           {2, 1}, {0, 2}, {2, 9}, {16, 1}, {15, 4294967295U}, {4, 0}}) {
    EXPECT_FALSE(blocks.add(range)) << range.first << " " << range.count;
  }
  EXPECT_EQ(blocks.free(), 2u);
  std::vector<FreeBlocks::Range> gone;
  EXPECT_FALSE(blocks.withdraw(1, gone));
}

// Against a model that keeps each block's place in the plainest way.
TEST(FreeBlocks, AgreeWithAModelAfterAnySequence) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](std::size_t n) {
      return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
    };
    FreeBlocks blocks = four_stripes_of_four();
    std::set<Block> live, loose;
    std::deque<Block> cached;
    for (int step = 0; step < 400; ++step) {
      switch (below(6)) {
        case 0: {
          const auto stripe = static_cast<FreeBlocks::Stripe>(below(4));
          const bool absent = blocks.held(stripe) == 0;
          ASSERT_EQ(blocks.add({stripe * 4, 4}), absent);
          for (Block b = stripe * 4; absent && b < stripe * 4 + 4; ++b) loose.insert(b);
          break;
        }
        case 1: {
          if (blocks.free() == 0) break;
          for (const Block block : take(blocks, 1 + below(blocks.free()))) {
            if (loose.empty()) {
              ASSERT_EQ(block, cached.front());
              cached.pop_front();
            } else {
              ASSERT_EQ(loose.erase(block), 1u);
            }
            live.insert(block);
          }
          break;
        }
        case 2:
        case 3: {
          const auto block = static_cast<Block>(below(16));
          const bool known = below(2) == 0, front = below(4) == 0;
          const bool was_live = live.erase(block) != 0;
          ASSERT_EQ(blocks.give(block, known, front ? End::front : End::back), was_live);
          if (!was_live) break;
          if (!known) loose.insert(block);
          if (known && front) cached.push_front(block);
          if (known && !front) cached.push_back(block);
          break;
        }
        case 4: {
          const auto block = static_cast<Block>(below(16));
          const bool forget = below(2) == 0;
          const auto at = std::find(cached.begin(), cached.end(), block);
          const bool is_cached = at != cached.end();
          if (is_cached) cached.erase(at);
          if (forget) {
            blocks.forget(block);
            if (is_cached) loose.insert(block);
          } else {
            const bool was_loose = loose.erase(block) != 0;
            ASSERT_EQ(blocks.remove(block), was_loose || is_cached);
            if (was_loose || is_cached) live.insert(block);
          }
          break;
        }
        case 5:
          if (const auto empty = blocks.empty(); !empty.empty()) {
            std::vector<FreeBlocks::Range> gone;
            ASSERT_TRUE(blocks.withdraw(empty.front(), gone));
            for (const auto& range : gone) {
              for (Block b = range.first; b < range.first + range.count; ++b) {
                ASSERT_EQ(loose.erase(b), 1u);
              }
            }
          }
          break;
      }
      ASSERT_EQ(blocks.loose(), loose.size());
      ASSERT_EQ(blocks.free(), loose.size() + cached.size());
      const std::vector<Block> all = blocks.all();
      ASSERT_EQ(std::set<Block>(all.begin(), all.begin() + static_cast<long>(loose.size())), loose);
      ASSERT_TRUE(std::equal(cached.begin(), cached.end(),
                             all.begin() + static_cast<long>(loose.size()), all.end()));
    }
  }
}

}  // namespace
}  // namespace kvcached::adapters
