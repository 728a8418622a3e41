// Plain memory and the pool on one GPU: what the pool gives follows what plain memory leaves.
#include <gtest/gtest.h>

#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

class Room : public TenantPool {
 protected:
  // Elastic, plain and outside memory, were all that is free in the pool granted, are the GPU's.
  bool fits() const {
    const auto pool = pool_in(pool_.path());
    if (!pool || !pool->gpu_total || !pool->gpu_free) return false;
    Pages kept;
    for (const auto& member : pool->members)
      kept += pages_up(member.figures.plain_peak.minus_clamped(member.figures.plain));
    return pool->free + kept <= *pool->gpu_free;
  }
  bool shortfall(std::uint64_t least_mib, std::uint64_t most_mib) const {
    return eventually([&] {
      const auto pool = pool_in(pool_.path());
      const std::uint64_t mib = pool ? bytes_of(pool->shortfall).value / kMiB : 0;
      return pool && mib >= least_mib && mib <= most_mib;
    });
  }
};

TEST_F(Room, ThePoolGivesWhatPlainMemoryLeaves) {
  const Tenant a("a", environment());
  const Tenant b("b", environment());
  EXPECT_TRUE(shortfall(0, 0));
  ASSERT_EQ(b.ask("plain 500"), "plain");
  EXPECT_TRUE(shortfall(276, 290));  // of 800 of 1,024 MiB; scratch is outside
  EXPECT_TRUE(eventually([&] { return fits(); }));
  const std::uint64_t got = a.number("acquire 6000 500");
  EXPECT_LE(got, 4'192U);
  EXPECT_GE(got, 3'900U);
  EXPECT_TRUE(eventually([&] { return fits(); }));
  EXPECT_EQ(a.ask("release"), "released");
  EXPECT_EQ(b.ask("free"), "free");
}

// Libraries do so now and then; the agent must not lose the context by which it looks at the GPU.
TEST_F(Room, WhoRetainsItsContextAgainStillSeesTheGpu) {
  const Tenant a("a", environment());
  ASSERT_EQ(a.ask("retain"), "retained");
  ASSERT_EQ(a.ask("plain 500"), "plain");
  EXPECT_TRUE(shortfall(276, 290));
}

TEST_F(Room, TheFirstMinimumIsNoMoreThanTheGpuHasFree) {
  for (const bool fits : {false, true}) {
    auto variables = environment("KVCACHED_MIN", fits ? "900MiB" : "1100MiB");
    variables["KVCACHED_POOL"] = "2GiB";
    const Tenant a("a", variables);
    const auto pool = pool_in(pool_.path());
    ASSERT_TRUE(pool && pool->tenants.size() == 1);
    EXPECT_EQ(pool->tenants[0].min_admitted, fits);
    EXPECT_EQ(pool->tenants[0].limits.min, fits ? Pages(450) : Pages());
  }
}

TEST_F(Room, AHighWaterMarkIsReachedAgain) {
  const Tenant a("a", environment());
  const Tenant b("b", environment());
  ASSERT_EQ(b.ask("plain 500"), "plain");
  ASSERT_EQ(b.ask("free"), "free");
  EXPECT_TRUE(shortfall(276, 290));
  EXPECT_LE(a.number("acquire 6000 500"), 4'192U);
  // a gives nothing back, and need not.
  EXPECT_EQ(b.ask("plain 500"), "plain");
  const auto pool = pool_in(pool_.path());
  for (const auto& tenant : pool->tenants) EXPECT_EQ(tenant.counters.reclaimed, Pages());
}

TEST_F(Room, PlainMemoryShortensRequestsUntilItGoes) {
  const Tenant a("a", environment());
  ASSERT_EQ(a.ask("model 64000"), "told");  // 500 MiB
  Tenant b("b", environment());
  ASSERT_EQ(b.ask("plain 700"), "plain");
  const auto tokens = [&] { return a.number("fits"); };
  EXPECT_TRUE(eventually([&] { return tokens() > 0 && tokens() <= 324ULL * 128; })) << tokens();
  b.end();
  EXPECT_TRUE(eventually([&] { return tokens() == 64'000; })) << tokens();
}

}  // namespace
}  // namespace kvcached::test
