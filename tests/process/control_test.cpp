// Changing a pool while its engines run: what they hold idle comes back at once, also from those
// that sleep; what is in use stays until they free it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class Control : public TenantPool {
 protected:
  // Has taken blocks once, uses none, and would keep them.
  static void hoard(const Tenant& tenant, std::uint64_t blocks = 6'000) {
    const std::string count = std::to_string(blocks);
    EXPECT_GE(tenant.number("acquire " + count + " 20000"), blocks);
    EXPECT_EQ(tenant.ask("expect " + count), "expecting");
    EXPECT_EQ(tenant.ask("release"), "released");
  }
  // Until its agent has just gone to sleep for a second, as idle ones do.
  void wait_asleep() const {
    const auto heard = [&] {
      const auto pool = pool_in(pool_.path());
      return pool && !pool->members.empty() ? pool->members[0].heard : Instant();
    };
    std::this_thread::sleep_for(milliseconds(1500));
    const Instant before = heard();
    while (heard() == before) std::this_thread::sleep_for(milliseconds(5));
  }
  // Whether a command takes effect before a sleeper would have looked by itself. A busy machine may
  // spoil a try.
  template <class P, class F>
  bool at_once(P prepare, F command) const {
    for (int i = 0; i < 4; ++i) {
      prepare();
      wait_asleep();
      const auto begin = std::chrono::steady_clock::now();
      command();
      if (std::chrono::steady_clock::now() - begin < milliseconds(800)) return true;
    }
    return false;
  }
  std::uint64_t charged_mib(const std::string& tenant = {}) const {
    const auto pool = pool_in(pool_.path());
    if (!pool) return ~0ULL;
    Pages sum;
    for (const auto& one : pool->tenants) {
      if (tenant.empty() || one.name == tenant) sum += one.charged;
    }
    return bytes_of(sum).value >> 20;
  }
};

TEST_F(Control, AMaximumHoldsAtOnceForASleeper) {
  const Tenant a("a", environment());
  hoard(a);
  EXPECT_GE(charged_mib(), 700U);
  int max = 800;
  const auto lower = [&] {
    max -= 150;
    const std::string text = std::to_string(max);
    const Answer answer = kvcached("set a max=" + text + "MiB --wait 20s");
    EXPECT_EQ(answer.status, 0);
    EXPECT_THAT(answer.text, HasSubstr("a: min 0, max " + text + " MiB, weight 100; charged "));
    EXPECT_LE(charged_mib(), static_cast<std::uint64_t>(max));
  };
  EXPECT_TRUE(at_once([] {}, lower)) << "nobody woke it";
  EXPECT_EQ(kvcached("set a max=200MiB --wait 20s").status, 0);
  EXPECT_LE(charged_mib(), 200U);
  EXPECT_LE(a.number("acquire 6000 300"), 1'600U);
  EXPECT_LE(charged_mib(), 200U);
  // And the way back.
  EXPECT_EQ(kvcached("set a max=100%").status, 0);
  EXPECT_GE(a.number("acquire 3000 20000"), 3'000U);
}

TEST_F(Control, WhatIsInUseStaysAndIsAskedFor) {
  const Tenant a("a", environment());
  EXPECT_EQ(a.number("acquire 4000 20000"), 4'000U);
  const Answer answer = kvcached("set a max=100MiB --wait 1500ms");
  EXPECT_EQ(answer.status, 0);
  EXPECT_THAT(answer.text, HasSubstr("above its maximum"));
  EXPECT_THAT(answer.text, HasSubstr("in use "));
  EXPECT_GE(charged_mib(), 500U);
  EXPECT_GE(a.number("pressure"), 3'000U);
  EXPECT_EQ(a.ask("release"), "released");
  EXPECT_TRUE(eventually([&] { return charged_mib() <= 100; }));
  EXPECT_TRUE(eventually([&] { return a.number("pressure") == 0; }));
}

TEST_F(Control, AMinimumIsFreeForItsTenantAtOnce) {
  const Tenant a("a", environment());
  hoard(a, 6'200);
  const Tenant b("b", environment());
  const Answer answer = kvcached("set b min=400MiB");
  EXPECT_EQ(answer.status, 0) << answer.text;
  EXPECT_TRUE(eventually([&] { return charged_mib("a") <= 400; }));
  EXPECT_EQ(b.number("acquire 3100 20000"), 3'100U);
  const auto pool = pool_in(pool_.path());
  for (const auto& one : pool->tenants) EXPECT_EQ(one.counters.below_min, Duration::zero());
}

TEST_F(Control, NotBelowTheLongestRequest) {
  const Tenant a("a", environment());
  EXPECT_EQ(a.ask("model 16000"), "told");  // 1,000 blocks: 125 MiB
  hoard(a, 100);
  EXPECT_TRUE(eventually([&] {
    const auto pool = pool_in(pool_.path());
    return pool && !pool->tenants.empty() && pool->tenants[0].least;
  }));
  const Answer low = kvcached("set a max=100MiB");
  EXPECT_EQ(low.status, 1);
  EXPECT_THAT(low.text, HasSubstr("kvcached: set: a: max=100MiB is less than one longest request"));
  const Answer limit = kvcached("limit 100MiB");
  EXPECT_EQ(limit.status, 1);
  EXPECT_THAT(limit.text, HasSubstr("is less than one longest request of a takes"));
  EXPECT_EQ(kvcached("set a max=200MiB").status, 0);
  // With that it can hold one such request.
  EXPECT_EQ(a.number("acquire 1000 20000"), 1'000U);
}

TEST_F(Control, TrimGivesBackWhatIsIdleOnce) {
  const Tenant a("a", environment());
  const auto trim = [&] {
    const std::uint64_t before = charged_mib();
    EXPECT_GE(before, 700U);
    const Answer answer = kvcached("trim a --wait 20s");
    EXPECT_EQ(answer.status, 0);
    EXPECT_THAT(answer.text,
                HasSubstr("a: charged " + std::to_string(before) + " MiB before, 0 now"));
    EXPECT_THAT(answer.text, Not(HasSubstr("answered")));
    EXPECT_EQ(charged_mib(), 0U);
  };
  EXPECT_TRUE(at_once([&] { hoard(a); }, trim)) << "nobody woke it";
  // Once: what comes after may stay warm again.
  hoard(a, 2'000);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_GE(charged_mib(), 200U);
}

TEST_F(Control, TrimAsksForAcquiredBlocksThatAreNotUsed) {
  const Tenant a("a", environment());
  EXPECT_EQ(a.number("acquire 2000 20000"), 2'000U);
  EXPECT_EQ(a.ask("in_use 500"), "told");
  EXPECT_EQ(a.number("pressure"), 0U);
  EXPECT_EQ(kvcached("trim a --wait 0").status, 0);
  std::uint64_t pressure = 0;
  EXPECT_TRUE(eventually([&] { return (pressure = a.number("pressure")) != 0; }));
  EXPECT_GE(pressure, 1'480U);  // in whole pages
  EXPECT_LE(pressure, 1'500U);
  // Engines that do not heed it are not asked for ever.
  EXPECT_TRUE(eventually([&] { return a.number("pressure") == 0; }));
}

TEST_F(Control, APoolShrinksAndGrows) {
  const Tenant a("a", environment());
  hoard(a);
  EXPECT_EQ(a.number("acquire 800 20000"), 800U);  // 100 MiB in use
  Answer answer = kvcached("limit 300MiB --wait 20s");
  EXPECT_EQ(answer.status, 0);
  EXPECT_THAT(answer.text, HasSubstr("pool 800 MiB before, 300 MiB now"));
  EXPECT_LE(charged_mib(), 300U);
  EXPECT_LE(a.number("acquire 4000 300"), 1'600U);
  EXPECT_LE(charged_mib(), 300U);
  answer = kvcached("limit 90%");  // of the GPU
  EXPECT_EQ(answer.status, 0);
  EXPECT_THAT(answer.text, HasSubstr("920 MiB now"));
  EXPECT_GE(a.number("acquire 4000 20000"), 4'000U);
  EXPECT_EQ(kvcached("limit 2GiB").status, 1) << "more than the GPU has";
}

TEST_F(Control, AStoppedTenantIsNamed) {
  const Tenant a("a", environment());
  hoard(a);
  a.kill(SIGSTOP);
  std::this_thread::sleep_for(milliseconds(3200));
  const Answer answer = kvcached("trim a --wait 200ms");
  EXPECT_EQ(answer.status, 0);
  EXPECT_THAT(answer.text, HasSubstr("; process " + std::to_string(a.pid()) + " is silent"));
}

}  // namespace
}  // namespace kvcached::test
