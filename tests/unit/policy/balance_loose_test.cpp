// What engines hold without a use for it, within their share: who is asked for it, and for whom.
#include <gtest/gtest.h>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

// Stripes of a page. The last fiftieth of the pool is for no young wish, so that who has less than
// its share by as much is next in line and finds nothing.
class LooseTest : public testing::Test {
 protected:
  // All of it in use, so much of that without a use.
  void add(std::uint64_t charged, std::uint64_t loose) {
    rig_.add(charged, charged).loose = Pages(loose);
  }
  std::uint64_t asked(std::size_t i) {
    const Tenant& t = rig_[i];
    return t.used.minus_clamped(t.plan.reuse).value;
  }

  Rig rig_{1000};
};

TEST_F(LooseTest, IsAskedForWhereSomebodyLacksIt) {
  add(500, 100);
  add(490, 0);
  rig_.wish(1, 40);
  rig_.plan();
  EXPECT_EQ(asked(0), 40U);
  EXPECT_EQ(asked(1), 0U);
}

// Two that work in turns would drop each other's cached blocks for good.
TEST_F(LooseTest, IsNotAskedForByWhoHasAsMuch) {
  add(500, 100);
  add(490, 40);
  rig_.wish(1, 40);
  EXPECT_EQ(rig_.plan(), Pages()) << "nobody has to make way";
  EXPECT_EQ(asked(0), 0U);
  rig_[1].loose = Pages(39);
  rig_.plan();
  EXPECT_EQ(asked(0), 40U);
}

TEST_F(LooseTest, IsNotAskedForWhereItsEngineNeedsIt) {
  add(450, 100);
  add(440, 0);
  rig_.wish(0, 101);
  rig_.wish(1, 250, seconds(2));
  rig_.plan();
  EXPECT_EQ(asked(0), 0U) << "it waits for more than that";
  rig_.wish(0, 50);
  rig_[0].charged = Pages(500);
  rig_.plan();
  ASSERT_EQ(missing(rig_[0]), Pages());
  EXPECT_EQ(asked(0), 0U) << "it has got what it waited for";
}

TEST_F(LooseTest, IsNotReplacedByWhatOthersGive) {
  add(460, 100);
  add(440, 0);
  rig_.wish(1, 180);
  rig_.wish(0, 10, seconds(2));
  rig_.plan();
  EXPECT_EQ(asked(0), 100U);
  EXPECT_EQ(rig_[0].plan.offer, Pages()) << "which is kept from the other";
  EXPECT_EQ(rig_.grantable(0, 10), Pages());
  EXPECT_EQ(rig_.grantable(0, 1, Purpose::ahead), Pages());
  rig_[1].want = Pages();
  rig_.plan();
  EXPECT_EQ(rig_.grantable(0, 10), Pages(10)) << "nobody else waits";
}

// Else the two would come to rest at half of the pool each, whatever one of them has no use for.
TEST_F(LooseTest, WhoHasEnoughOfItClaimsNoShareForItsWish) {
  add(480, 200);
  add(515, 0);
  rig_.wish(0, 30);
  rig_.wish(1, 40);
  rig_.plan();
  EXPECT_EQ(rig_.target(0), Pages(480));
  EXPECT_TRUE(rig_[1].plan.entitled);
  EXPECT_GE(asked(0), 35U);
}

// Who is above its target is asked first, but may have a use for all it has.
TEST_F(LooseTest, IsAskedForAtLastThoughOthersAreAboveTheirTarget) {
  add(700, 0);
  add(200, 100);
  add(100, 0);
  rig_.wish(2, 40);
  rig_.plan();
  EXPECT_GE(asked(0), 40U);
  EXPECT_EQ(asked(1), 0U);
  rig_.wish(2, 40, seconds(6));
  rig_.plan();
  ASSERT_TRUE(rig_[2].plan.aged);
  EXPECT_EQ(asked(1), 40U);
}

TEST_F(LooseTest, IsAskedOfOneAfterTheOtherAndAtLastOfAll) {
  add(333, 60);
  add(333, 50);
  add(324, 0);
  rig_.wish(2, 40);
  rig_.plan();
  EXPECT_GE(asked(0), 30U) << "it has the most";
  EXPECT_EQ(asked(0) + asked(1), 40U);
  rig_.wish(2, 40, seconds(6));
  rig_.plan();
  ASSERT_TRUE(rig_[2].plan.aged);
  ASSERT_EQ(rig_[2].plan.lacks, Pages(30)) << "it gets what is free";
  EXPECT_GE(asked(0), 30U);
  EXPECT_GE(asked(1), 30U) << "the first did not give";
}

}  // namespace
}  // namespace kvcached::balance
