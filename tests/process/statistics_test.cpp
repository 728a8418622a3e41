// What real processes leave in the pool's account for those who look at it: what tenants met, what
// plain memory there is, and the last minutes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "policy/clock.hpp"
#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Statistics : public TenantPool {
 protected:
  ledger::TenantState of(const std::string& tenant) const {
    const auto pool = pool_in(pool_.path());
    if (!pool) return {};
    for (const auto& one : pool->tenants) {
      if (one.name == tenant) return one;
    }
    return {};
  }
  std::vector<ledger::Moment> moments() const {
    std::vector<std::string> complaints;
    auto pools = ledger::read_histories(pool_.path(), steady_clock().now(), complaints);
    return pools.empty() ? std::vector<ledger::Moment>{} : std::move(pools[0].moments);
  }
};

TEST_F(Statistics, InATimeNamespaceOfItsOwnAProcessHasThePoolsTime) {
  const std::vector<std::string> elsewhere = {"unshare", "--time", "--monotonic", "3600", "--fork"};
  std::string command;
  for (const std::string& word : elsewhere) command += word + " ";
  if (std::system((command + "true 2>/dev/null").c_str()) != 0)
    GTEST_SKIP() << "needs the right to make time namespaces, and a program that does";
  const Tenant far("far", environment(), elsewhere);
  EXPECT_EQ(far.number("acquire 100 20000"), 100U);
  const auto pool = pool_in(pool_.path());
  ASSERT_TRUE(pool && pool->members.size() == 1);
  const Duration age = steady_clock().now() - pool->members[0].heard;
  EXPECT_GE(age, seconds(0));
  EXPECT_LT(age, seconds(60));
}

// What an engine announces is its tenant's demand in the pool, beside what it uses.
TEST_F(Statistics, WhatIsExpectedIsTheDemand) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 1000 20000"), 1'000U);
  const auto figures = [&] {
    const auto pool = pool_in(pool_.path());
    return pool && !pool->members.empty() ? pool->members[0].figures : ledger::Figures{};
  };
  ASSERT_TRUE(eventually([&] { return figures().used != Pages(); }));
  EXPECT_TRUE(eventually([&] {
    const ledger::Figures now = figures();
    return now.demand == now.used + now.fragmented;
  }));
  EXPECT_EQ(a.ask("expect 3000"), "expecting");
  EXPECT_TRUE(eventually([&] {
    const ledger::Figures now = figures();
    return now.demand >= now.used + Pages(2 * now.used.value) &&
           now.demand < Pages(5 * now.used.value);
  })) << "three times as many blocks as are in use";
  EXPECT_EQ(a.ask("expect 140737488355328"), "expecting");
  EXPECT_TRUE(eventually([&] {
    const ledger::Figures now = figures();
    const Pages all = pages_up(now.reserved);
    return now.demand > Pages(5 * now.used.value) && now.demand <= all + Pages(1) &&
           now.want <= all;
  })) << "no more than there are";
}

// It can be had from the holder, so that others may ask for it; but not all, or each next step of
// the holder's would have to wait.
TEST_F(Statistics, WhatItsHolderKeepsFreeIsNoDemand) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 6200 20000"), 6'200U);
  const auto demand_is = [&](auto right) {
    return eventually([&] {
      const auto pool = pool_in(pool_.path());
      return pool && !pool->members.empty() && right(pool->members[0].figures);
    });
  };
  EXPECT_TRUE(
      demand_is([](const ledger::Figures& f) { return f.demand == f.used + f.fragmented; }));
  EXPECT_EQ(a.ask("in_use 500"), "told");
  EXPECT_TRUE(demand_is([](const ledger::Figures& f) {
    return f.fragmented > f.used && f.demand > f.used && f.demand < f.used + f.fragmented;
  }));
  EXPECT_EQ(a.ask("in_use 6200"), "told");
  EXPECT_TRUE(demand_is([](const ledger::Figures& f) {
    return f.used > f.fragmented && f.demand == f.used + f.fragmented;
  }));
}

TEST_F(Statistics, WhatTenantsMetOutlivesTheProcessThatMetIt) {
  const Tenant a("a", environment());
  EXPECT_GE(a.number("acquire 6200 20000"), 6'200U);
  EXPECT_EQ(a.ask("expect 6200"), "expecting");
  EXPECT_EQ(a.ask("release"), "released");
  Tenant b("b", environment("KVCACHED_MIN", "20MiB"));
  const Tenant b2("b", environment());
  EXPECT_EQ(b.number("acquire 3000 20000"), 3'000U);
  EXPECT_EQ(b.ask("evicted 12"), "told");
  EXPECT_EQ(b.ask("evicted 30"), "told");
  ASSERT_TRUE(eventually([&] { return of("b").counters.evicted == 42; }));
  const auto waits = [&] {
    std::uint64_t sum = 0;
    for (const std::uint32_t count : of("b").counters.waits) sum += count;
    return sum;
  };
  EXPECT_TRUE(eventually([&] { return waits() >= 1; })) << "it waited for what a held";
  const ledger::TenantCounters giver = of("a").counters;
  EXPECT_GE(giver.reclaimed, Pages(180)) << "3,000 blocks less what was free";
  ASSERT_GE(giver.takers.size(), 1U);
  EXPECT_EQ(giver.takers[0].tenant, "b");
  EXPECT_EQ(of("b").counters.below_min, Duration::zero());
  EXPECT_GE(of("b").counters.short_grants, 1U);
  EXPECT_GE(of("b").counters.stripes_kept.misses, 1U);
  const std::uint64_t before = waits();
  const std::uint64_t grants = of("b").counters.grants;
  b.end();
  EXPECT_TRUE(eventually([&] {
    const auto pool = pool_in(pool_.path());
    return pool && pool->members.size() == 2;
  }));
  EXPECT_EQ(of("b").counters.evicted, 42U);
  EXPECT_EQ(waits(), before);
  EXPECT_GE(of("b").counters.grants, grants);
}

TEST_F(Statistics, PlainMemoryIsToldApart) {
  const Tenant a("a", environment());
  EXPECT_EQ(a.ask("plain 100"), "plain");
  EXPECT_EQ(a.number("acquire 100 20000"), 100U);
  ASSERT_TRUE(eventually([&] {
    const auto pool = pool_in(pool_.path());
    return pool && pool->plain() >= Bytes(100 << 20) && pool->unexplained();
  }));
  const auto pool = pool_in(pool_.path());
  EXPECT_EQ(pool->plain(), Bytes(100 << 20));
  EXPECT_EQ(pool->members.at(0).figures.plain_peak, Bytes(100 << 20));
  EXPECT_EQ(pool->gpu_total, pages_down(Bytes(1 << 30)));
  EXPECT_LT(*pool->unexplained(), Bytes(400 << 20)) << "the rest is the context and the scratch";
  EXPECT_EQ(a.ask("free"), "free");
  EXPECT_TRUE(eventually([&] { return pool_in(pool_.path())->plain() == Bytes(); }));
  EXPECT_EQ(pool_in(pool_.path())->members.at(0).figures.plain_peak, Bytes(100 << 20));
}

TEST_F(Statistics, HistoryGoesOnWhoeverOfItsWritersDies) {
  const Tenant keeps("keeps", environment());
  EXPECT_EQ(keeps.number("acquire 800 20000"), 800U);
  for (int round = 0; round < 3; ++round) {
    Tenant dies("dies", environment());
    EXPECT_EQ(dies.number("acquire 400 20000"), 400U);
    std::this_thread::sleep_for(milliseconds(1100));
    dies.end();
  }
  EXPECT_TRUE(eventually([&] {
    const auto now = moments();
    return !now.empty() && now.back().tenants.size() == 1;
  }));
  const auto seen = moments();
  ASSERT_GE(seen.size(), 4U);
  const std::int64_t span = seen.back().second - seen.front().second + 1;
  EXPECT_GE(static_cast<std::int64_t>(seen.size()) + 1, span) << "a second is missing";
  bool both = false;
  for (const auto& moment : seen) {
    EXPECT_EQ(moment.pool, pages_down(Bytes(800 << 20)));
    EXPECT_LE(moment.charged + moment.limbo, moment.pool);
    both = both || moment.tenants.size() == 2;
  }
  EXPECT_TRUE(both);
  EXPECT_EQ(seen.back().tenants.size(), 1U);
  EXPECT_EQ(seen.back().tenants[0].name, "keeps");
  EXPECT_GE(seen.back().used, Pages(50));
}

// What the thread `kvcached` of a process has slept and woken.
std::uint64_t wakes_of(pid_t pid) {
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name != "kvcached") continue;
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      const std::string key = "voluntary_ctxt_switches:";
      if (line.starts_with(key)) return std::stoull(line.substr(key.size()));
    }
  }
  return 0;
}

TEST_F(Statistics, AnIdleProcessWakesOnceASecond) {
  const Tenant a("a", environment());
  // With blocks in use, and others that are to stay ready.
  EXPECT_EQ(a.number("acquire 100 20000"), 100U);
  EXPECT_EQ(a.ask("expect 500"), "expecting");
  std::this_thread::sleep_for(seconds(2));
  const std::size_t written = moments().size();
  const std::uint64_t before = wakes_of(a.pid());
  EXPECT_GT(before, 0U);
  std::this_thread::sleep_for(milliseconds(5200));
  // A wake may wait for a lock of the driver's, too.
  EXPECT_LE(wakes_of(a.pid()) - before, 8U);
  EXPECT_GE(moments().size() - written, 4U);
}

}  // namespace
}  // namespace kvcached::test
