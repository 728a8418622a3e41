// How long a request may be in less memory than the longest takes.
#include "policy/sequence.hpp"

#include <gtest/gtest.h>

namespace kvcached {
namespace {

// 8 tokens a page, 10 pages that are never given back, stripes of 4: 80 tokens are 10 pages of
// blocks, three stripes.
SequenceNeed need() {
  return {bytes_of(Pages(1)) / 8, 80, 16, Pages(10 + 12), Pages(10), Pages(4)};
}

TEST(Sequence, WhoHasEnoughForTheLongestIsNotDegraded) {
  EXPECT_EQ(fitting_tokens(need(), Pages(22)), 80U);
  EXPECT_EQ(fitting_tokens(need(), Pages(1000)), 80U);
}

TEST(Sequence, WholeStripesBesideWhatIsNeverGivenBack) {
  EXPECT_EQ(fitting_tokens(need(), Pages(21)), 64U);  // two stripes
  EXPECT_EQ(fitting_tokens(need(), Pages(18)), 64U);
  EXPECT_EQ(fitting_tokens(need(), Pages(17)), 32U);
  EXPECT_EQ(fitting_tokens(need(), Pages(13)), 0U);
  EXPECT_EQ(fitting_tokens(need(), Pages(0)), 0U);
}

TEST(Sequence, WholeBlocks) {
  SequenceNeed odd = need();
  odd.block_tokens = 24;
  EXPECT_EQ(fitting_tokens(odd, Pages(18)), 48U);
  odd.block_tokens = 0;  // damage must not divide
  EXPECT_EQ(fitting_tokens(odd, Pages(18)), 64U);
}

// The last stripe of a cache may be a small one.
TEST(Sequence, ACacheThatHoldsLessThanWholeStripes) {
  SequenceNeed small = need();
  small.least = Pages(20);
  EXPECT_EQ(fitting_tokens(small, Pages(20)), 80U);
}

TEST(Sequence, WithoutACacheBytesDecide) {
  const SequenceNeed bare{bytes_of(Pages(1)) / 8, 80, 16, {}, {}, {}};
  EXPECT_EQ(fitting_tokens(bare, Pages(10)), 80U);
  EXPECT_EQ(fitting_tokens(bare, Pages(9)), 64U);
  EXPECT_EQ(fitting_tokens({}, Pages(9)), 0U);
}

}  // namespace
}  // namespace kvcached
