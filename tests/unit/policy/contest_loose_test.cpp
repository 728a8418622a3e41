// What engines hold without a use for it, in a pool that is short: the account asks them for it.
// The rules themselves are tested with the policy.
#include <gtest/gtest.h>

#include "policy/ledger/ledger.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

class ContestLooseTest : public PoolFolder {
 protected:
  static void use(Ledger& member, std::uint64_t used) { member.publish(figures(used, 5)); }
};

// Though it has no more than its share, and nobody but its engine can give it.
TEST_F(ContestLooseTest, WhatAnEngineHasNoUseForIsAskedFor) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(50)));
  ASSERT_TRUE(b->charge(Pages(48)));
  use(*b, 48);
  use_and_need(*a, 15, 35, 30);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_LE(a->duty().reuse, Pages(40));
  EXPECT_GE(a->duty().reuse, Pages(35));
  a->uncharge(Pages(10));
  use_and_need(*a, 15, 25, 30);
  EXPECT_TRUE(b->charge(Pages(10), Pages(10)));
  use(*b, 58);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  EXPECT_EQ(a->duty().reuse, Pages(30)) << "it will use the rest";
}

TEST_F(ContestLooseTest, NobodyIsAskedForWhatWouldNotHelp) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(50)));
  ASSERT_TRUE(b->charge(Pages(10)));
  use(*b, 10);
  use_and_need(*a, 50, 0, 20);
  EXPECT_FALSE(b->charge(Pages(80), Pages(80))) << "30 and what is free are not enough";
  EXPECT_GE(a->duty().reuse, Pages(49)) << "its share";
  EXPECT_FALSE(b->charge(Pages(60), Pages(60)));
  EXPECT_LE(a->duty().reuse, Pages(30));
}

// Nobody waits for what a stopped process has above its tenant's share.
TEST_F(ContestLooseTest, IsAskedForBesideOneThatHasStopped) {
  const auto stopped = member("stopped");
  const auto lender = member("lender");
  const auto other = member("other");
  const auto waits = member("waits");
  ASSERT_TRUE(stopped->charge(Pages(60)));
  ASSERT_TRUE(lender->charge(Pages(20)));
  ASSERT_TRUE(other->charge(Pages(20)));
  const auto tell = [&] {
    use_and_need(*lender, 5, 15, 10);
    use(*other, 20);
    use(*waits, 0);
    EXPECT_FALSE(waits->charge(Pages(5), Pages(5)));
  };
  use(*stopped, 60);
  tell();
  EXPECT_EQ(lender->duty().reuse, Pages(20)) << "the other is asked";
  clock_.advance(std::chrono::seconds(4));
  tell();
  EXPECT_LE(lender->duty().reuse, Pages(17));
}

}  // namespace
}  // namespace kvcached::ledger
