// What tenants announce that they will need, beside what others wait for now.
#include <gtest/gtest.h>

#include <random>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

TEST(BalanceForecast, DecidesWhoGives) {
  Rig rig(1000);
  rig.add(400, 100).demand = Pages(400);
  rig.add(400, 100);
  rig.add(200, 200);
  rig.wish(2, 150);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(0));
  EXPECT_EQ(rig.reclaim(1), Pages(150));
}

// A fiftieth of the pool is granted to no young claim. What the needs leave over holds as much less
// for forecasts.
TEST(BalanceForecast, YieldsWhatAClaimLacks) {
  Rig rig(400);
  rig.add(380, 0).demand = Pages(388);
  rig.add(12, 0, 10);
  rig.wish(1, 188);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.reclaim(0), Pages(176));
}

// What is waited for is announced as a rule, and then counts once.
TEST(BalanceForecast, IncludesTheWish) {
  Rig rig(1000);
  rig.add(100, 100);
  rig.add(100, 100);
  rig.add(600, 100).demand = Pages(900);
  rig.wish(1, 150);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(1), Pages(250));
  EXPECT_EQ(rig.target(2), Pages(650));
  rig[1].demand = Pages(250);
  EXPECT_EQ(rig.plan(), Pages(0));
  EXPECT_EQ(rig.target(1), Pages(250));
  EXPECT_EQ(rig.target(2), Pages(650));
}

// Stripes that do not add up, victims that fund their pages too well: whatever it is that keeps a
// claim waiting, it is no forecast.
TEST(BalanceForecast, KeepsNoClaimWaiting) {
  std::mt19937 random(1);
  const auto upto = [&](std::uint64_t least, std::uint64_t most) {
    return least + random() % (most - least + 1);
  };
  int unmet = 0;
  for (int pool = 0; pool < 20'000; ++pool) {
    const std::uint64_t size = upto(50, 1000);
    Rig with(size);
    std::uint64_t left = size;
    for (std::uint64_t i = upto(2, 6); i > 0; --i) {
      const std::uint64_t stripe = 1U << upto(0, 5);
      const std::uint64_t charged = upto(0, left) / stripe * stripe;
      left -= charged;
      Tenant& t = with.add(charged, upto(0, charged));
      t.stripe = Pages(stripe);
      t.weight = static_cast<std::uint32_t>(upto(1, 4));
      t.demand = Pages(upto(0, size));
      if (random() % 3 == 0) with.wish(t.id, upto(1, size / 2));
    }
    Rig without = with;
    for (Tenant& t : without.tenants) t.demand = Pages();
    const Pages missed = without.plan();
    ASSERT_LE(with.plan(), missed) << "pool " << pool;
    if (missed) ++unmet;
  }
  EXPECT_GT(unmet, 2'000) << "pools in which something waits";
}

}  // namespace
}  // namespace kvcached::balance
