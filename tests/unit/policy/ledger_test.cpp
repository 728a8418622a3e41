// Charging, minimums and maximums, tenants: several memberships of one process side by side.
#include "policy/ledger/ledger.hpp"

#include <gmock/gmock.h>

#include <vector>

#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

class LedgerTest : public PoolFolder {};

TEST_F(LedgerTest, ChargesAllOrNothing) {
  const auto a = member("a");
  EXPECT_TRUE(a->charge(Pages(60)));
  EXPECT_FALSE(a->charge(Pages(41)));
  EXPECT_EQ(a->charged(), Pages(60));
  EXPECT_TRUE(a->charge(Pages(40)));
  EXPECT_FALSE(a->charge(Pages(1)));
  EXPECT_FALSE(a->charge(Pages::max()));
  a->uncharge(Pages(100));
  EXPECT_EQ(a->charged(), Pages());
  EXPECT_EQ(a->snapshot().free, Pages(100));
}

TEST_F(LedgerTest, MembersShareOnePool) {
  const auto a = member("a");
  const auto b = member("b");
  EXPECT_TRUE(a->charge(Pages(70)));
  EXPECT_FALSE(b->charge(Pages(31)));
  EXPECT_TRUE(b->charge(Pages(30)));
  a->uncharge(Pages(10));
  EXPECT_TRUE(b->charge(Pages(10)));
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.charged, Pages(100));
  EXPECT_EQ(books.free, Pages());
}

TEST_F(LedgerTest, ChargesOnlyAfterJoining) {
  const auto a = open();
  EXPECT_FALSE(a->charge(Pages(1)));
  a->uncharge(Pages(1));
  EXPECT_EQ(a->charged(), Pages());
}

TEST_F(LedgerTest, UnchargingMoreThanChargedStopsAtZero) {
  const auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(5)));
  a->uncharge(Pages(7));
  EXPECT_EQ(a->charged(), Pages());
  EXPECT_EQ(a->snapshot().charged, Pages());
}

TEST_F(LedgerTest, MinimumStaysReservedForItsTenant) {
  const auto a = member("a", 40);
  const auto b = member("b");
  EXPECT_FALSE(b->charge(Pages(61)));
  EXPECT_TRUE(b->charge(Pages(60)));
  EXPECT_TRUE(a->charge(Pages(30)));
  EXPECT_FALSE(b->charge(Pages(1)));
  EXPECT_TRUE(a->charge(Pages(10)));
  EXPECT_FALSE(a->charge(Pages(1)));
}

TEST_F(LedgerTest, MinimumIsFreeAgainWhenItsTenantLeaves) {
  auto a = member("a", 40);
  const auto b = member("b");
  EXPECT_FALSE(b->charge(Pages(61)));
  a.reset();
  EXPECT_TRUE(b->charge(Pages(61)));
}

TEST_F(LedgerTest, MaximumHolds) {
  const auto a = member("a", 0, 30);
  EXPECT_FALSE(a->charge(Pages(31)));
  EXPECT_TRUE(a->charge(Pages(30)));
  EXPECT_FALSE(a->charge(Pages(1)));
}

TEST_F(LedgerTest, ProcessesOfOneTenantShareItsLimits) {
  const auto a1 = member("a", 20, 30);
  const auto a2 = member("a", 90, 90);  // comes second: its limits don't count
  EXPECT_EQ(a2->limits().min, Pages(20));
  EXPECT_EQ(a2->limits().max, Pages(30));
  EXPECT_TRUE(a1->charge(Pages(25)));
  EXPECT_FALSE(a2->charge(Pages(6)));
  EXPECT_TRUE(a2->charge(Pages(5)));
  const Snapshot books = a1->snapshot();
  ASSERT_EQ(books.tenants.size(), 1U);
  EXPECT_EQ(books.tenants[0].name, "a");
  EXPECT_EQ(books.tenants[0].charged, Pages(30));
  EXPECT_EQ(books.members.size(), 2U);
}

TEST_F(LedgerTest, MinimumThatCannotBePromisedIsReportedAndDropped) {
  const auto a = member("a", 60);
  const auto b = member("b", 41);
  EXPECT_EQ(b->limits().min, Pages());
  const Snapshot books = b->snapshot();
  ASSERT_EQ(books.tenants.size(), 2U);
  EXPECT_TRUE(books.tenants[0].min_admitted);
  EXPECT_FALSE(books.tenants[1].min_admitted);
  EXPECT_TRUE(b->charge(Pages(40)));
  EXPECT_TRUE(a->charge(Pages(60)));
}

TEST_F(LedgerTest, MinimumBehindOthersChargesCannotBePromised) {
  const auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(70)));
  const auto b = member("b", 31);
  const auto c = member("c", 30);
  EXPECT_EQ(b->limits().min, Pages());
  EXPECT_EQ(c->limits().min, Pages(30));
}

TEST_F(LedgerTest, MinimumAboveMaximumIsNotAdmitted) {
  const auto a = member("a", 50, 40);
  EXPECT_EQ(a->limits().min, Pages());
  EXPECT_EQ(a->limits().max, Pages(40));
  EXPECT_FALSE(a->snapshot().tenants.at(0).min_admitted);
}

TEST_F(LedgerTest, LimitsAreForgottenWithTheLastMember) {
  auto a = member("a", 20, 30);
  const auto b = member("b");
  a.reset();
  a = member("a", 10, 50);
  EXPECT_EQ(a->limits().min, Pages(10));
  EXPECT_EQ(a->limits().max, Pages(50));
}

TEST_F(LedgerTest, FirstMemberSetsThePoolUntilNobodyIsLeft) {
  auto a = open(100);
  auto b = open(50);
  EXPECT_EQ(b->pool(), Pages(100));
  a.reset();
  b.reset();
  EXPECT_EQ(open(50)->pool(), Pages(50));
}

TEST_F(LedgerTest, NamesAreCut) {
  const std::string longest(47, 'x');
  const auto a = member(longest + "yy", 10);
  const auto b = member(longest);
  const Snapshot books = b->snapshot();
  ASSERT_EQ(books.tenants.size(), 1U);
  EXPECT_EQ(books.tenants[0].name, longest);
}

TEST_F(LedgerTest, AllPlacesTaken) {
  std::vector<std::unique_ptr<Ledger>> members;
  for (int i = 0; i < 256; ++i) members.push_back(member("t" + std::to_string(i)));
  EXPECT_TRUE(members.back()->charge(Pages(1)));
  EXPECT_EQ(members.front()->snapshot().tenants.size(), 256U);
  auto late = open();
  EXPECT_FALSE(late->join({"late", {}, "test"}, complaint_));
  EXPECT_THAT(complaint_, testing::HasSubstr("all 256 places"));
  EXPECT_FALSE(late->charge(Pages(1)));
  members[100].reset();
  EXPECT_TRUE(late->join({"late", {}, "test"}, complaint_));
  EXPECT_TRUE(late->charge(Pages(1)));
}

TEST_F(LedgerTest, AbandonedLedgerDoesNothing) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(10)));
  a->abandon();
  EXPECT_FALSE(a->charge(Pages(1)));
  a->uncharge(Pages(1));
  a->publish({});
  a->describe_model({});
  a->report_adapter("x", "y");
  EXPECT_EQ(a->charged(), Pages());
  EXPECT_EQ(a->reap(Bytes()), Pages());
  EXPECT_FALSE(a->join({"a", {}, "test"}, complaint_));
  EXPECT_TRUE(a->snapshot().members.empty());
  EXPECT_EQ(b->snapshot().limbo, Pages(10));
}

}  // namespace
}  // namespace kvcached::ledger
