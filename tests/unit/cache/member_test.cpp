// One process in the pool: what its caches wish for together.
#include "shim/member/member.hpp"

#include <gtest/gtest.h>

#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::test {
namespace {

class MemberTest : public ledger::PoolFolder {};

TEST_F(MemberTest, AWishStandsUntilTheLastHasDroppedIt) {
  const auto peer = member("peer");
  ASSERT_TRUE(peer->charge(Pages(100)));
  ledger::Figures idle;
  idle.stripe = Pages(5);
  peer->publish(idle);
  Settings settings;
  settings.directory = path_;
  settings.directory_named = true;
  const auto own = member::Member::join(settings, gpu_, bytes_of(Pages(100)), std::nullopt, clock_);
  ASSERT_NE(own, nullptr);

  own->begin_wish();
  EXPECT_FALSE(own->charge(Pages(10), Pages(30)));
  own->begin_wish();
  EXPECT_FALSE(own->charge(Pages(10), Pages(20)));
  own->drop_wish();
  EXPECT_GE(peer->duty().reclaim, Pages(20));
  own->drop_wish();
  EXPECT_EQ(peer->duty().reclaim, Pages());

  EXPECT_FALSE(own->charge(Pages(10), Pages(30)));
  EXPECT_GE(peer->duty().reclaim, Pages(30));
  own->drop_wish();
  EXPECT_EQ(peer->duty().reclaim, Pages()) << "one that did not say so first";
}

}  // namespace
}  // namespace kvcached::test
