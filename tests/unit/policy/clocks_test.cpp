// Members whose clocks differ, as in other time namespaces, and clocks that jump.
#include <gtest/gtest.h>

#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

class ClocksTest : public PoolFolder {
 protected:
  std::unique_ptr<Ledger> member_by(const Clock& clock, std::string_view tenant) {
    auto ledger = Ledger::open(request(100), clock, refusal_, complaint_);
    EXPECT_TRUE(ledger && ledger->join({tenant, {}, "test"}, complaint_)) << complaint_;
    return ledger;
  }
  static void use(Ledger& member, std::uint64_t used) { member.publish(figures(used, 1)); }
  ManualClock other_;
};

TEST_F(ClocksTest, LimboFromTheFutureEndsFiveSecondsAfterItIsSeen) {
  other_.advance(hours(1));
  const auto a = member("a");
  const auto b = member_by(other_, "b");
  auto dying = member("dying");
  ASSERT_TRUE(dying->charge(Pages(30)));
  dying->abandon();
  EXPECT_EQ(b->reap(Bytes(0)), Pages(30));
  EXPECT_EQ(a->reap(Bytes(0)), Pages(30));
  clock_.advance(seconds(5));
  EXPECT_EQ(a->reap(Bytes(0)), Pages(0));
}

TEST_F(ClocksTest, AClockThatJumpsBackStopsNothing) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 20);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  a->reap(Bytes(0));
  clock_.advance(-hours(1) + seconds(1));
  use(*a, 20);
  use(*b, 0);
  a->reap(Bytes(0));
  EXPECT_GE(a->duty().reclaim, Pages(10));
  a->uncharge(Pages(40));
  EXPECT_TRUE(b->charge(Pages(10), Pages(10)));
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.charged + books.free, Pages(100));
  for (const TenantState& tenant : books.tenants)
    EXPECT_GE(tenant.counters.below_min, Duration::zero());
  std::vector<std::string> complaints;
  const auto histories = read_histories(path_, clock_.now(), complaints);
  ASSERT_EQ(histories.size(), 1U);
  EXPECT_EQ(histories[0].moments.size(), 1U) << "only what was before now";
}

}  // namespace
}  // namespace kvcached::ledger
