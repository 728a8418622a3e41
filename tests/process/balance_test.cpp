// Tenants of one pool when it is short: idle memory changes hands, guarantees hold, and nobody who
// has died or stopped keeps the others waiting.
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <thread>

#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

using std::chrono::milliseconds;

class Balance : public TenantPool {
 protected:
  static constexpr std::uint64_t kAll = 6'400;

  // Has taken everything once, uses nothing, and would keep it.
  static void hoard(const Tenant& tenant) {
    EXPECT_GE(tenant.number("acquire 6200 20000"), 6'200U);
    EXPECT_EQ(tenant.ask("expect 6200"), "expecting");
    EXPECT_EQ(tenant.ask("release"), "released");
  }
};

TEST_F(Balance, IdleMemoryChangesHands) {
  const Tenant a("a", environment());
  hoard(a);
  const Tenant b("b", environment());
  EXPECT_EQ(b.number("acquire 5000 20000"), 5'000U);
  EXPECT_LE(a.number("ready"), kAll - 5'000);
  // And back, once b does not need it.
  EXPECT_EQ(b.ask("release"), "released");
  EXPECT_EQ(a.number("acquire 5000 20000"), 5'000U);
}

// The pool plans with figures that each process tells it now and then. Those of who waits, and of
// whom it waits for, must not be old: with blocks taken since, they would look like idle memory.
TEST_F(Balance, AWishDoesNotWaitForFigures) {
  const Tenant a("a", environment());
  hoard(a);
  int at_once = 0;
  for (int i = 0; i < 5; ++i) {
    const Tenant b("b", environment());
    EXPECT_EQ(b.number("acquire 2000 20000"), 2'000U);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(b.number("acquire 3000 20000"), 3'000U);
    at_once += std::chrono::steady_clock::now() - start < milliseconds(40) ? 1 : 0;
    EXPECT_EQ(b.ask("release"), "released");
    EXPECT_GE(a.number("acquire 5000 20000"), 5'000U);
    EXPECT_EQ(a.ask("release"), "released");
  }
  EXPECT_GE(at_once, 4);
}

TEST_F(Balance, OnlyAsMuchAsIsWanted) {
  const Tenant a("a", environment());
  hoard(a);
  const Tenant b("b", environment());
  EXPECT_EQ(b.number("acquire 1000 20000"), 1'000U);
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_GE(a.number("ready"), 3'000U);
}

TEST_F(Balance, AMinimumIsNotTaken) {
  const Tenant a("a", environment("KVCACHED_MIN", "400MiB"));
  hoard(a);
  const Tenant b("b", environment());
  EXPECT_LE(b.number("acquire 6000 500"), kAll / 2);
  // As long as b's wish stands, a may not use what it has beyond its share.
  EXPECT_TRUE(eventually([&] { return a.number("ready") >= kAll / 2 - 300; }));
}

TEST_F(Balance, ABusyTenantIsToldWhatToDoWithout) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 6200 20000"), 6'200U);
  const Tenant b("b", environment());
  b.say("acquire 3000 20000");
  std::uint64_t pressure = 0;
  for (int i = 0; i < 500 && pressure == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    pressure = a.number("pressure");
  }
  EXPECT_GT(pressure, 2'000U);
  EXPECT_EQ(a.ask("release"), "released");
  EXPECT_EQ(b.hear(), "acquired 3000");
  for (int i = 0; i < 500 && pressure != 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    pressure = a.number("pressure");
  }
  EXPECT_EQ(pressure, 0U);
}

TEST_F(Balance, ABusyTenantIsCalledBack) {
  const Tenant a("a", environment());
  EXPECT_EQ(a.ask("obey"), "obeying");
  EXPECT_GE(a.number("acquire 6200 20000"), 6'200U);
  const Tenant b("b", environment());
  EXPECT_EQ(b.number("acquire 3000 20000"), 3'000U);
}

// Each of them uses less than the tenant's share, and both together more.
TEST_F(Balance, ProcessesOfABusyTenantMakeWayTogether) {
  const Tenant first("a", environment());
  const Tenant second("a", environment());
  EXPECT_GE(first.number("acquire 4000 20000"), 4'000U);
  EXPECT_GE(second.number("acquire 2200 20000"), 2'200U);
  const Tenant b("b", environment());
  b.say("acquire 2500 20000");
  EXPECT_TRUE(eventually([&] {
    const std::uint64_t of_first = first.number("pressure");
    const std::uint64_t of_second = second.number("pressure");
    const std::uint64_t together = of_first + of_second;
    return of_first > of_second && of_second >= 600 && together >= 2'200 && together <= 2'600;
  })) << first.number("pressure")
      << " and " << second.number("pressure");
  EXPECT_EQ(second.ask("release"), "released");
  EXPECT_EQ(first.ask("release"), "released");
  EXPECT_EQ(b.hear(), "acquired 2500");
}

class Plain : public Balance, public testing::WithParamInterface<const char*> {};

TEST_P(Plain, GetsWhatOthersHoldIdle) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 6200 20000"), 6'200U);
  EXPECT_EQ(a.ask("expect 6000"), "expecting");
  EXPECT_EQ(a.ask("release"), "released");
  const Tenant b("b", environment());
  EXPECT_EQ(b.ask(std::string("plain 500 ") + GetParam()), "plain");
}

INSTANTIATE_TEST_SUITE_P(Ways, Plain, testing::Values("alloc", "pitch", "create"),
                         [](const auto& way) { return std::string(way.param); });

TEST_F(Balance, PlainMemoryThatNobodyCanGiveIsRefused) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 3000 20000"), 3'000U);
  const Tenant b("b", environment());
  EXPECT_EQ(b.ask("plain 2000"), "refused") << "more than the GPU has";
  EXPECT_EQ(b.number("acquire 500 20000"), 500U) << "no claim is left behind";
}

TEST_F(Balance, AStoppedHoarderIsPassedOver) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 3000 20000"), 3'000U);
  EXPECT_EQ(a.ask("expect 3000"), "expecting");
  EXPECT_EQ(a.ask("release"), "released");
  const Tenant c("c", environment());
  EXPECT_GE(c.number("acquire 3000 20000"), 3'000U);
  EXPECT_EQ(c.ask("expect 3000"), "expecting");
  EXPECT_EQ(c.ask("release"), "released");
  a.kill(SIGSTOP);
  const Tenant b("b", environment());
  EXPECT_EQ(b.number("acquire 2500 20000"), 2'500U);
}

TEST_F(Balance, ADeadClaimantBothersNobody) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 6200 20000"), 6'200U);
  Tenant b("b", environment());
  b.say("acquire 3000 60000");
  for (int i = 0; i < 500 && a.number("pressure") == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  b.end();
  std::uint64_t pressure = 1;
  for (int i = 0; i < 500 && pressure != 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    pressure = a.number("pressure");
  }
  EXPECT_EQ(pressure, 0U);
}

}  // namespace
}  // namespace kvcached::test
