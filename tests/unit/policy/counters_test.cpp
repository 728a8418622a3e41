// What a tenant met, counted in the pool's file by its members together.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class CountersTest : public PoolFolder {
 protected:
  static void use(Ledger& member, std::uint64_t used) { member.publish(figures(used, 1)); }
  TenantCounters of(std::string_view tenant) {
    const auto books = open()->snapshot();
    for (const TenantState& one : books.tenants) {
      if (one.name == tenant) return one.counters;
    }
    ADD_FAILURE() << "no such tenant";
    return {};
  }
  static std::uint64_t sum(const TenantCounters& counters) {
    std::uint64_t all = 0;
    for (const std::uint32_t count : counters.waits) all += count;
    return all;
  }
};

TEST_F(CountersTest, GrantsOfAllMembersTogether) {
  const auto a = member("a");
  const auto b = member("a");
  ASSERT_TRUE(a->charge(Pages(10)));
  ASSERT_TRUE(b->charge(Pages(20)));
  EXPECT_FALSE(b->charge(Pages(71)));
  EXPECT_EQ(of("a").grants, 2U);
  EXPECT_EQ(of("a").granted, Pages(30));
}

TEST_F(CountersTest, FiguresAddWhatHasGrown) {
  const auto a = member("a");
  const auto b = member("a");
  Figures figures;
  figures.short_grants = 3;
  figures.evicted = 10;
  figures.stripes_kept = {5, 6, 7};
  a->publish(figures);
  a->publish(figures);
  b->publish(figures);
  figures.short_grants = 4;
  figures.evicted = 8;  // it destroyed a cache: its own count begins anew
  a->publish(figures);
  figures.evicted = 9;
  a->publish(figures);
  const TenantCounters counters = of("a");
  EXPECT_EQ(counters.short_grants, 7U);
  EXPECT_EQ(counters.evicted, 21U);
  EXPECT_EQ(counters.stripes_kept.hits, 10U);
  EXPECT_EQ(counters.stripes_kept.misses, 12U);
  EXPECT_EQ(counters.stripes_kept.in_vain, 14U);
}

TEST_F(CountersTest, TheyOutliveAMemberAndEndWithTheTenant) {
  auto a = member("a");
  auto b = member("a");
  ASSERT_TRUE(a->charge(Pages(10)));
  Figures figures;
  figures.evicted = 10;
  a->publish(figures);
  a->abandon();  // as a death
  EXPECT_EQ(of("a").grants, 1U);
  EXPECT_EQ(of("a").evicted, 10U);
  b->reap(Bytes(0));
  EXPECT_EQ(of("a").grants, 1U);
  b.reset();
  a = member("a");
  EXPECT_EQ(of("a").grants, 0U) << "a new life";
  EXPECT_EQ(of("a").evicted, 0U);
}

TEST_F(CountersTest, AWaitLastsFromTheRefusalToTheLastGrant) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 0);
  EXPECT_FALSE(b->charge(Pages(10), Pages(20)));
  clock_.advance(milliseconds(2));
  a->uncharge(Pages(40));
  EXPECT_TRUE(b->charge(Pages(10), Pages(20)));
  clock_.advance(milliseconds(1));
  EXPECT_TRUE(b->charge(Pages(10), Pages(20)));
  clock_.advance(seconds(1));  // until it notices that it waits no more
  EXPECT_EQ(sum(of("b")), 0U) << "it still waits";
  b->drop_claim();
  const TenantCounters counters = of("b");
  EXPECT_EQ(sum(counters), 1U);
  EXPECT_EQ(counters.waits[12], 1U) << "3 ms, so below 4096 us";
  EXPECT_EQ(wait_bound(12), microseconds(4096));
  EXPECT_EQ(counters.waits_in_vain, 0U);
  EXPECT_EQ(sum(of("a")), 0U);
}

TEST_F(CountersTest, WhoNeverWaitedHasNoWait) {
  const auto a = member("a");
  EXPECT_TRUE(a->charge(Pages(10), Pages(20)));
  a->drop_claim();
  EXPECT_EQ(sum(of("a")), 0U);
  EXPECT_EQ(of("a").waits_in_vain, 0U);
}

TEST_F(CountersTest, AWaitThatIsGivenUpIsInVain) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(b->charge(Pages(5)));  // before it, which is no grant of this wait
  ASSERT_TRUE(a->charge(Pages(95)));
  use(*a, 95);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  clock_.advance(seconds(1));
  b->drop_claim();
  EXPECT_EQ(of("b").waits_in_vain, 1U);
  EXPECT_EQ(sum(of("b")), 0U);
}

TEST_F(CountersTest, VeryLongWaitsAreInTheLastBucket) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 100);
  EXPECT_FALSE(b->charge(Pages(10), Pages(10)));
  clock_.advance(std::chrono::hours(24));
  a->uncharge(Pages(100));
  EXPECT_TRUE(b->charge(Pages(10), Pages(10)));
  b->drop_claim();
  EXPECT_EQ(of("b").waits[kWaitBuckets - 1], 1U);
}

TEST_F(CountersTest, WhatWasReclaimedAndForWhom) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  use(*a, 10);
  use(*b, 0);
  EXPECT_FALSE(b->charge(Pages(40), Pages(40)));
  a->uncharge(Pages(15));
  EXPECT_EQ(of("a").reclaimed, Pages(15));
  Pages asked(15);
  while (a->duty().reclaim) {
    asked += a->duty().reclaim;
    a->uncharge(a->duty().reclaim);
  }
  a->uncharge(Pages(3));  // of its own accord
  EXPECT_TRUE(b->charge(Pages(40), Pages(40)));
  b->drop_claim();
  a->uncharge(Pages(3));
  EXPECT_GE(asked, Pages(40));
  const TenantCounters counters = of("a");
  EXPECT_EQ(counters.reclaimed, asked);
  ASSERT_EQ(counters.takers.size(), 1U);
  EXPECT_EQ(counters.takers[0].tenant, "b");
  EXPECT_EQ(counters.takers[0].pages, asked);
  EXPECT_TRUE(of("b").takers.empty());
}

TEST_F(CountersTest, WhoTookLeastMakesRoom) {
  const auto giver = member("giver");
  ASSERT_TRUE(giver->charge(Pages(100)));
  use(*giver, 0);
  std::uint64_t all = 0;
  for (std::uint64_t i = 1; i <= 8; ++i) {
    const auto taker = member("taker" + std::to_string(i));
    const std::uint64_t pages = 9 - i;  // less and less
    EXPECT_FALSE(taker->charge(Pages(pages), Pages(pages)));
    // All that is asked for, so that the taker can have it; then it leaves again.
    Pages asked;
    while (giver->duty().reclaim) {
      asked += giver->duty().reclaim;
      giver->uncharge(giver->duty().reclaim);
    }
    all += asked.value;
    EXPECT_TRUE(taker->charge(Pages(pages), Pages(pages))) << i;
    taker->drop_claim();
    taker->uncharge(Pages(pages));
    EXPECT_TRUE(giver->charge(asked));
    use(*giver, 0);
  }
  const TenantCounters counters = of("giver");
  EXPECT_EQ(counters.reclaimed, Pages(all)) << "the sum keeps what is not listed";
  ASSERT_EQ(counters.takers.size(), 6U);
  Pages listed;
  for (const auto& taker : counters.takers) listed += taker.pages;
  EXPECT_LT(listed, counters.reclaimed);
  EXPECT_EQ(counters.takers[0].tenant, "") << "it is gone, and others came in its place";
  EXPECT_GT(counters.takers[0].pages, counters.takers[5].pages);
  EXPECT_EQ(counters.takers[0].pages.value, 8U + 2U) << "what it lacked, and what stays free";
}

TEST_F(CountersTest, RefusedWithinTheMinimumIsCounted) {
  const auto a = member("a", 30);
  // A stopped process holds the lock: nothing can be granted to anyone.
  PoolFile holder(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(holder.try_lock(LockKind::exclusive));
  EXPECT_FALSE(a->charge(Pages(10)));
  clock_.advance(milliseconds(300));
  use(*a, 0);  // what lasts is shown while it lasts
  holder.unlock();
  EXPECT_EQ(of("a").below_min, milliseconds(300));
  clock_.advance(milliseconds(200));
  EXPECT_TRUE(a->charge(Pages(10)));
  clock_.advance(seconds(5));
  use(*a, 0);
  EXPECT_EQ(of("a").below_min, milliseconds(500));
}

TEST_F(CountersTest, RefusedBeyondTheMinimumIsNot) {
  const auto a = member("a", 30);
  const auto b = member("b");
  ASSERT_TRUE(b->charge(Pages(70)));
  use(*b, 70);
  EXPECT_FALSE(a->charge(Pages(31), Pages(31)));
  clock_.advance(seconds(1));
  use(*a, 0);
  EXPECT_EQ(of("a").below_min, Duration::zero());
}

TEST_F(CountersTest, WhoGivesUpIsNotBelowItsMinimumAnyMore) {
  const auto a = member("a", 30);
  PoolFile holder(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(holder.try_lock(LockKind::exclusive));
  EXPECT_FALSE(a->charge(Pages(10)));
  holder.unlock();
  clock_.advance(milliseconds(100));
  a->drop_claim();
  clock_.advance(seconds(5));
  use(*a, 0);
  EXPECT_EQ(of("a").below_min, milliseconds(100));
}

TEST_F(CountersTest, DamagedCountsAreBounded) {
  const auto a = member("a");
  PoolFile raw(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(raw.map(true));
  layout::Tenant& tenant = raw.mapped()->tenants[0];
  tenant.granted = ~0ULL;
  tenant.reclaimed = ~0ULL;
  tenant.below_min = ~0ULL;
  tenant.takers[0].who = ~0ULL;
  tenant.takers[0].pages = ~0ULL;
  tenant.takers[1].who = 1;
  tenant.takers[1].pages = 5;
  const TenantCounters counters = of("a");
  EXPECT_EQ(counters.granted, Pages(layout::kMaxPoolPages));
  EXPECT_EQ(counters.reclaimed, Pages(layout::kMaxPoolPages));
  EXPECT_GT(counters.below_min, Duration::zero());
  ASSERT_EQ(counters.takers.size(), 2U);
  EXPECT_EQ(counters.takers[0].tenant, "");
  EXPECT_EQ(counters.takers[1].tenant, "") << "of another generation";
}

}  // namespace
}  // namespace kvcached::ledger
