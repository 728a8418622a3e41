// Limits that change while members live: what the account then allows and asks for, and what is
// refused.
#include "policy/ledger/control.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class ControlTest : public PoolFolder {
 protected:
  static void use(Ledger& member, std::uint64_t used, std::uint64_t least = 0) {
    Figures told = figures(used, 5);
    told.least = Pages(least);
    member.publish(told);
  }
  static Size pages(std::uint64_t count) { return {bytes_of(Pages(count)), 0, false}; }
  std::string change(std::string_view tenant, const LimitChange& what) {
    return change_limits(path_, gpu_, tenant, what, clock_);
  }
  std::string set_min(std::string_view tenant, std::uint64_t min) {
    return change(tenant, {pages(min), {}, {}});
  }
  std::string set_max(std::string_view tenant, std::uint64_t max) {
    return change(tenant, {{}, pages(max), {}});
  }
  std::string set_pool(std::uint64_t size) { return change_pool(path_, gpu_, pages(size), clock_); }
  std::unique_ptr<Ledger> sized(std::string_view tenant, std::uint64_t total) {
    OpenRequest wanted = request(100);
    wanted.gpu_total = Pages(total);
    auto ledger = Ledger::open(wanted, clock_, refusal_, complaint_);
    EXPECT_TRUE(ledger->join({tenant, {}, "test"}, complaint_)) << complaint_;
    return ledger;
  }
};

TEST_F(ControlTest, AllThreeLimitsAreInForceAtOnce) {
  const auto a = member("a");
  EXPECT_THAT(change("a", {pages(10), pages(60), 300U}), IsEmpty());
  EXPECT_EQ(a->limits().min, Pages(10));
  EXPECT_EQ(a->limits().max, Pages(60));
  EXPECT_EQ(a->limits().weight, 300U);
  EXPECT_FALSE(a->charge(Pages(61)));
  EXPECT_TRUE(a->charge(Pages(60)));
  const auto b = member("b");
  EXPECT_FALSE(b->charge(Pages(41)));
  EXPECT_TRUE(b->charge(Pages(40)));
}

TEST_F(ControlTest, SharesAreOfThePool) {
  const auto a = member("a");
  EXPECT_THAT(change("a", {Size{Bytes{}, 0.25, true}, Size{Bytes{}, 0.5, true}, {}}), IsEmpty());
  EXPECT_EQ(a->limits().min, Pages(25));
  EXPECT_EQ(a->limits().max, Pages(50));
}

TEST_F(ControlTest, AboveItsNewMaximumItIsAskedForWhatIsIdle) {
  const auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(90)));
  use(*a, 20);
  const std::uint32_t rung = a->rung();
  EXPECT_THAT(set_max("a", 40), IsEmpty());
  EXPECT_NE(a->rung(), rung) << "nobody told it";
  EXPECT_EQ(a->duty().reclaim, Pages(50));
  EXPECT_EQ(a->duty().reuse, Pages(40));
  a->uncharge(Pages(30));
  EXPECT_EQ(a->duty().reclaim, Pages(20));
  a->uncharge(Pages(20));
  EXPECT_EQ(a->duty().reclaim, Pages(0)) << "it is done";
  EXPECT_FALSE(a->charge(Pages(1)));
}

TEST_F(ControlTest, WhatIsInUseAboveItIsNotTakenButNotUsedAgainEither) {
  const auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(90)));
  use(*a, 90);
  EXPECT_THAT(set_max("a", 40), IsEmpty());
  EXPECT_EQ(a->duty().reclaim, Pages(0));
  EXPECT_EQ(a->duty().reuse, Pages(40));
  use(*a, 60);
  a->reap(free_pages(100));
  EXPECT_EQ(a->duty().reclaim, Pages(30));
}

TEST_F(ControlTest, AMinimumIsMadeFreeByOthersIdlePages) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(95)));
  use(*a, 10);
  use(*b, 0);
  EXPECT_THAT(set_min("b", 30), IsEmpty());
  EXPECT_EQ(a->duty().reclaim, Pages(25));
  EXPECT_FALSE(a->charge(Pages(1))) << "what is free is promised";
  a->uncharge(Pages(25));
  EXPECT_EQ(a->duty().reclaim, Pages(0));
  EXPECT_TRUE(b->charge(Pages(30)));
}

TEST_F(ControlTest, MinimumsTogetherFitIntoThePool) {
  const auto a = member("a", 30);
  const auto b = member("b", 20);
  EXPECT_EQ(set_min("a", 81),
            "a: min=162MiB with the other minimums of 40MiB exceeds the pool of 200MiB; write at "
            "most 160MiB");
  EXPECT_EQ(a->limits().min, Pages(30));
  EXPECT_THAT(set_min("a", 80), IsEmpty());
  EXPECT_EQ(b->limits().min, Pages(20));
  EXPECT_THAT(change("a", {Size{Bytes::max(), 0, false}, {}, {}}), HasSubstr("write"));
}

TEST_F(ControlTest, OnlyTheLivingHaveMinimums) {
  const auto a = member("a");
  const auto b = member("b", 60);
  EXPECT_THAT(set_min("a", 50), HasSubstr("exceeds the pool"));
  b->abandon();  // as a death, that nobody has noticed
  EXPECT_THAT(set_min("a", 50), IsEmpty());
}

TEST_F(ControlTest, AMinimumThatWasNotPromisedCanBeLater) {
  const auto a = member("a", 80);
  const auto b = member("b", 50);
  const auto admitted = [&] { return a->snapshot().tenants.at(1).min_admitted; };
  EXPECT_FALSE(admitted());
  EXPECT_THAT(set_min("a", 40), IsEmpty());
  EXPECT_THAT(set_min("b", 50), IsEmpty());
  EXPECT_TRUE(admitted());
}

TEST_F(ControlTest, AMaximumLeavesRoomForTheMinimumAndForOneRequest) {
  const auto a = member("a", 20);
  EXPECT_EQ(set_max("a", 10),
            "a: min=40MiB is above max=20MiB; change both or write at most the maximum");
  EXPECT_EQ(change("a", {{}, Size{Bytes(5 << 20), 0, false}, {}}),
            "a: min=40MiB is above max=5MiB; change both or write at most the maximum");
  EXPECT_EQ(change("a", {{}, Size{Bytes(), 0.001, true}, {}}),
            "a: max: less than a page; write at least 2MiB");
  EXPECT_THAT(change("a", {pages(5), pages(10), {}}), IsEmpty());
  use(*a, 0, 30);
  EXPECT_EQ(set_max("a", 29),
            "a: max=58MiB is less than one longest request takes; write at least 60MiB");
  EXPECT_THAT(set_max("a", 30), IsEmpty());
  EXPECT_EQ(change("a", {pages(0), Size{Bytes(1), 0, false}, {}}),
            "a: max: less than a page; write at least 2MiB");
  EXPECT_EQ(a->snapshot().tenants.at(0).least, Pages(30));
  // Whose process is gone needs nothing.
  const auto b = member("a");
  a->abandon();
  EXPECT_THAT(set_max("a", 10), IsEmpty());
}

TEST_F(ControlTest, NobodyOfThatName) {
  const auto a = member("a");
  EXPECT_THAT(set_max("b", 10), HasSubstr("no tenant of this pool is named b"));
  std::uint32_t order = 0;
  EXPECT_THAT(order_trim(path_, gpu_, "b", order), HasSubstr("named b"));
  EXPECT_THAT(change_limits(path_, GpuUuid{9}, "a", {}, clock_), HasSubstr("No such file"));
}

TEST_F(ControlTest, AWeightCountsInTheNextPlan) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 100);
  use(*b, 0);
  EXPECT_FALSE(b->charge(Pages(50), Pages(100)));
  const Pages half = a->duty().reuse;
  EXPECT_THAT(change("a", {{}, {}, 400U}), IsEmpty());
  EXPECT_GT(a->duty().reuse, half);
}

TEST_F(ControlTest, ASmallerPoolTakesWhatIsIdle) {
  const auto a = member("a", 10);
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(50)));
  ASSERT_TRUE(b->charge(Pages(40)));
  use(*a, 30);
  use(*b, 10);
  EXPECT_THAT(set_pool(60), IsEmpty());
  EXPECT_EQ(a->pool(), Pages(60));
  EXPECT_EQ(a->duty().reclaim + b->duty().reclaim, Pages(30));
  EXPECT_FALSE(a->charge(Pages(1)));
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.charged, Pages(90)) << "what is true is shown";
  EXPECT_EQ(books.free, Pages(0));
  a->uncharge(a->duty().reclaim);
  b->uncharge(b->duty().reclaim);
  EXPECT_EQ(a->snapshot().charged, Pages(60));
  EXPECT_EQ(a->duty().reclaim + b->duty().reclaim, Pages(0));
}

TEST_F(ControlTest, APoolGrowsUpToTheGpu) {
  const auto a = sized("a", 150);
  const auto b = sized("b", 150);
  EXPECT_FALSE(a->charge(Pages(120)));
  EXPECT_THAT(set_pool(151), HasSubstr("write from 2MiB to 300MiB"));
  EXPECT_THAT(set_pool(150), IsEmpty());
  EXPECT_EQ(b->pool(), Pages(150));
  EXPECT_TRUE(a->charge(Pages(120))) << "who may have all may have all of more, too";
  EXPECT_THAT(change_pool(path_, gpu_, Size{Bytes{}, 0.9, true}, clock_), IsEmpty());
  EXPECT_EQ(b->pool(), Pages(135));
  EXPECT_THAT(set_pool(0), HasSubstr("write from 2MiB"));
}

TEST_F(ControlTest, AShareNeedsTheGpusSize) {
  const auto a = member("a");
  EXPECT_THAT(change_pool(path_, gpu_, Size{Bytes{}, 0.9, true}, clock_),
              HasSubstr("write a size"));
}

TEST_F(ControlTest, APoolKeepsItsPromises) {
  const auto a = member("a", 30);
  const auto b = member("b", 20);
  use(*b, 0, 70);
  EXPECT_EQ(set_pool(49),
            "a pool of 98MiB does not cover the minimums; write at least 100MiB or lower them "
            "first");
  EXPECT_EQ(set_pool(69),
            "a pool of 138MiB is less than one longest request of b takes; write at least 140MiB");
  EXPECT_THAT(set_pool(70), IsEmpty());
}

TEST_F(ControlTest, TheNextFirstMemberDecidesAnew) {
  auto a = sized("a", 200);
  EXPECT_THAT(set_pool(50), IsEmpty());
  a.reset();
  EXPECT_THAT(set_pool(60), HasSubstr("no process is in this pool"));
  EXPECT_EQ(member("b")->pool(), Pages(100));
}

TEST_F(ControlTest, TrimReachesEveryMemberOnce) {
  const auto a = member("a");
  const auto b = member("a");
  const auto c = member("c");
  const std::uint32_t rung = a->rung();
  std::uint32_t order = 0;
  EXPECT_THAT(order_trim(path_, gpu_, "a", order), IsEmpty());
  EXPECT_NE(a->rung(), rung);
  EXPECT_EQ(a->duty().trim, order);
  EXPECT_EQ(b->duty().trim, order);
  EXPECT_EQ(c->duty().trim, std::nullopt);
  a->trimmed(order);
  EXPECT_EQ(a->duty().trim, std::nullopt);
  const Snapshot books = c->snapshot();
  EXPECT_EQ(books.tenants.at(0).trim, order);
  EXPECT_EQ(books.members.at(0).trimmed, order);
  EXPECT_NE(books.members.at(1).trimmed, order);
  EXPECT_EQ(member("a")->duty().trim, std::nullopt) << "whoever comes later holds nothing";
}

TEST_F(ControlTest, AStoppedHolderOfTheLockIsNamed) {
  const auto a = member("a");
  PoolFile holder(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(holder.try_lock(LockKind::exclusive));
  EXPECT_THAT(set_max("a", 10), HasSubstr("is one stopped?"));
}

TEST_F(ControlTest, DamagedValuesAreBounded) {
  const auto a = member("a");
  PoolFile raw(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(raw.map(true));
  raw.mapped()->header.pool_pages = 70'000;
  EXPECT_EQ(a->pool(), Pages(100)) << "more than the pool ever had";
  raw.mapped()->header.pool_pages = 0;
  EXPECT_FALSE(a->charge(Pages(1)));
  raw.mapped()->header.pool_pages = 100;
  raw.mapped()->slots[0].least = ~0ULL;
  EXPECT_EQ(a->snapshot().tenants.at(0).least, Pages(100));
  EXPECT_THAT(set_max("a", 99), HasSubstr("write at least 200MiB"));
}

}  // namespace
}  // namespace kvcached::ledger
