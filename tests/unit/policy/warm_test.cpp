#include "policy/warm.hpp"

#include <gtest/gtest.h>

namespace kvcached {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Instant at(Duration since) { return Instant(std::chrono::hours(1) + since); }

TEST(WarmPolicy, KeepsWhatIsExpected) {
  WarmPolicy policy(Blocks(1000));
  policy.sample(at(seconds(0)), Blocks(10));
  EXPECT_EQ(policy.keep(Blocks(10), Blocks(64)), Blocks(64));
  EXPECT_EQ(policy.keep(Blocks(10), Blocks(0)), Blocks(0));
}

TEST(WarmPolicy, FreedBlocksStayAndHalveEverySecond) {
  WarmPolicy policy(Blocks(100000));
  policy.sample(at(seconds(0)), Blocks(1024));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(1024));
  policy.sample(at(seconds(1)), Blocks(0));
  EXPECT_NEAR(static_cast<double>(policy.keep(Blocks(0), Blocks(0)).value), 512, 1);
  for (int tick = 1; tick <= 20; ++tick) {  // many samples decay as much as one
    policy.sample(at(seconds(1) + milliseconds(100) * tick), Blocks(0));
  }
  EXPECT_NEAR(static_cast<double>(policy.keep(Blocks(0), Blocks(0)).value), 128, 2);
  policy.sample(at(seconds(30)), Blocks(0));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(0));
}

TEST(WarmPolicy, AnIdleCallersHalveFourTimesASecond) {
  WarmPolicy policy(Blocks(100000));
  policy.sample(at(seconds(0)), Blocks(1024));
  policy.sample(at(milliseconds(250)), Blocks(0), true);
  EXPECT_NEAR(static_cast<double>(policy.keep(Blocks(0), Blocks(0)).value), 512, 1);
  policy.sample(at(milliseconds(1250)), Blocks(0), false);
  EXPECT_NEAR(static_cast<double>(policy.keep(Blocks(0), Blocks(0)).value), 256, 1);
}

TEST(WarmPolicy, DecaysTowardsWhatIsLive) {
  WarmPolicy policy(Blocks(100000));
  policy.sample(at(seconds(0)), Blocks(1000));
  policy.sample(at(seconds(2)), Blocks(600));
  EXPECT_NEAR(static_cast<double>(policy.keep(Blocks(600), Blocks(0)).value), 100, 1);
}

TEST(WarmPolicy, NeverKeepsMoreThanTheCap) {
  WarmPolicy policy(Blocks(100));
  policy.sample(at(seconds(0)), Blocks(1024));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(100));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(500)), Blocks(100));
  EXPECT_EQ(policy.capped(Blocks(500)), Blocks(100));
  EXPECT_EQ(policy.capped(Blocks(50)), Blocks(50));
}

TEST(WarmPolicy, TheFloorStaysOnceItWasUsed) {
  WarmPolicy policy(Blocks(1000), Blocks(50));
  policy.sample(at(seconds(0)), Blocks(0));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(0));
  policy.sample(at(seconds(1)), Blocks(400));
  policy.sample(at(seconds(60)), Blocks(0));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(50));
  policy.forget();
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(0));
  policy.sample(at(seconds(61)), Blocks(1));
  policy.sample(at(seconds(90)), Blocks(0));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(50));
  EXPECT_EQ(WarmPolicy(Blocks(20), Blocks(50)).keep(Blocks(0), Blocks(0)), Blocks(0));
}

TEST(WarmPolicy, ForgetsThePeakAtOnce) {
  WarmPolicy policy(Blocks(10000));
  policy.sample(at(seconds(0)), Blocks(1024));
  policy.forget();
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(0));
}

TEST(WarmPolicy, TimeThatStandsOrGoesBackDecaysNothing) {
  WarmPolicy policy(Blocks(10000));
  policy.sample(at(seconds(5)), Blocks(1000));
  policy.sample(at(seconds(5)), Blocks(0));
  policy.sample(at(seconds(4)), Blocks(0));
  EXPECT_EQ(policy.keep(Blocks(0), Blocks(0)), Blocks(1000));
}

TEST(WarmPolicy, ItSaysWhetherTimeWillChangeIt) {
  WarmPolicy policy(Blocks(1'000), Blocks(10));
  const Instant start{std::chrono::hours(1)};
  policy.sample(start, Blocks());
  EXPECT_FALSE(policy.decaying(Blocks(), Blocks())) << "nothing was ever used";
  policy.sample(start, Blocks(100));
  EXPECT_FALSE(policy.decaying(Blocks(100), Blocks()));
  EXPECT_TRUE(policy.decaying(Blocks(50), Blocks()));
  EXPECT_FALSE(policy.decaying(Blocks(50), Blocks(50))) << "so many are expected anyway";
  policy.sample(start + std::chrono::seconds(20), Blocks());
  EXPECT_EQ(policy.keep(Blocks(), Blocks()), Blocks(10));
  EXPECT_FALSE(policy.decaying(Blocks(), Blocks())) << "the floor stays";
}

}  // namespace
}  // namespace kvcached
