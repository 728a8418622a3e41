// The pool's last ten minutes, as members write them and tools read them.
#include "policy/ledger/history.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "policy/ledger/test_points.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class HistoryTest : public PoolFolder {
 protected:
  std::vector<Moment> moments() {
    std::vector<std::string> complaints;
    const auto pools = read_histories(path_, clock_.now(), complaints);
    EXPECT_TRUE(complaints.empty());
    return pools.size() == 1 ? pools[0].moments : std::vector<Moment>{};
  }
  void map(PoolFile& raw) {
    raw = PoolFile(::open(file().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(raw.map(true));
  }
};

TEST_F(HistoryTest, ARecordASecondWhoeverComesFirst) {
  const auto a = member("a", 10);
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(20)));
  Figures figures;
  figures.used = Pages(15);
  figures.want = Pages(7);
  a->publish(figures);
  a->reap(free_pages(100));
  ASSERT_TRUE(b->charge(Pages(30)));
  b->reap(free_pages(100));  // the same second: what is written stays
  ASSERT_EQ(moments().size(), 1U);
  clock_.advance(milliseconds(999));
  b->reap(free_pages(100));
  EXPECT_EQ(moments().size(), 1U);
  clock_.advance(milliseconds(1));
  b->reap(free_pages(100));
  const auto two = moments();
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[0].second, 3600);
  EXPECT_EQ(two[0].pool, Pages(100));
  EXPECT_EQ(two[0].charged, Pages(20));
  EXPECT_EQ(two[0].free, Pages(80));
  EXPECT_EQ(two[0].used, Pages(15));
  EXPECT_EQ(two[0].want, Pages(7));
  ASSERT_EQ(two[0].tenants.size(), 2U);
  EXPECT_EQ(two[0].tenants[0].name, "a");
  EXPECT_EQ(two[0].tenants[0].charged, Pages(20));
  EXPECT_EQ(two[0].tenants[0].used, Pages(15));
  EXPECT_EQ(two[0].tenants[0].want, Pages(7));
  EXPECT_EQ(two[1].second, 3601);
  EXPECT_EQ(two[1].charged, Pages(50));
  EXPECT_EQ(two[1].tenants[1].charged, Pages(30));
}

TEST_F(HistoryTest, LimboIsTold) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(20)));
  a->abandon();
  b->reap(free_pages(10));
  EXPECT_EQ(moments().at(0).limbo, Pages(20));
  EXPECT_EQ(moments().at(0).charged, Pages(0));
  EXPECT_EQ(moments().at(0).free, Pages(80));
}

TEST_F(HistoryTest, TenMinutesAndNoMore) {
  const auto a = member("a");
  for (int i = 0; i < 700; ++i) {
    if (i % 10 != 3) a->reap(free_pages(100));  // seconds may be missing
    clock_.advance(seconds(1));
  }
  const auto kept = moments();
  EXPECT_EQ(kept.size(), 540U - 1) << "the newest is a second old";
  EXPECT_EQ(kept.front().second, 3600 + 101);
  EXPECT_EQ(kept.back().second, 3600 + 699);
  for (std::size_t i = 1; i < kept.size(); ++i) EXPECT_LT(kept[i - 1].second, kept[i].second);
  clock_.advance(seconds(597));
  EXPECT_EQ(moments().size(), 2U);
  clock_.advance(seconds(600));
  EXPECT_EQ(moments().size(), 0U);
}

TEST_F(HistoryTest, WhoIsGoneHasNoNameOnceItsPlaceIsTaken) {
  auto a = member("a");
  const auto b = member("b");
  b->reap(free_pages(100));
  a.reset();
  EXPECT_EQ(moments().at(0).tenants.at(0).name, "a") << "its place is free";
  const auto c = member("c");
  EXPECT_EQ(moments().at(0).tenants.at(0).name, "");
  EXPECT_EQ(moments().at(0).tenants.at(1).name, "b");
}

TEST_F(HistoryTest, OfManyTenantsThoseWithTheMost) {
  std::vector<std::unique_ptr<Ledger>> members;
  for (std::uint64_t i = 0; i < 40; ++i) {
    members.push_back(member("t" + std::to_string(i), 0, 1'000, 1'000));
    ASSERT_TRUE(members.back()->charge(Pages(1 + i % 20)));
  }
  members[0]->reap(free_pages(1'000));
  const auto one = moments().at(0);
  ASSERT_EQ(one.tenants.size(), 32U);
  EXPECT_EQ(one.charged, Pages(420)) << "the sum is of all";
  for (const auto& tenant : one.tenants) EXPECT_GT(tenant.charged, Pages(4));
}

TEST_F(HistoryTest, WhatIsHalfWrittenIsLeftOut) {
  const auto a = member("a");
  a->reap(free_pages(100));
  clock_.advance(seconds(1));
  a->reap(free_pages(100));
  PoolFile raw;
  map(raw);
  raw.mapped()->moments[3600 % 600].sequence = 7;
  ASSERT_EQ(moments().size(), 1U);
  EXPECT_EQ(moments()[0].second, 3601);
  // When its place comes round again, it is mended.
  clock_.advance(seconds(599));
  a->reap(free_pages(100));
  EXPECT_EQ(moments().size(), 2U);
  EXPECT_EQ(raw.mapped()->moments[3600 % 600].sequence, 8U);
}

Ledger* writer = nullptr;
ManualClock* writers_clock = nullptr;

TEST_F(HistoryTest, WhatChangesWhileItIsReadIsReadAgain) {
  const auto a = member("a");
  a->reap(free_pages(100));
  ASSERT_TRUE(a->charge(Pages(30)));
  writer = a.get();
  writers_clock = &clock_;
  PoolFile raw;
  map(raw);
  test_point_hook = [](const char* name) {
    if (std::string_view(name) != "history.read") return;
    test_point_hook = nullptr;
    writers_clock->advance(seconds(600));  // the same place
    writer->reap(free_pages(100));
  };
  const auto seen = read_moments(*raw.mapped(), clock_.now() + seconds(600));
  EXPECT_EQ(test_point_hook, nullptr);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].second, 4200);
  EXPECT_EQ(seen[0].charged, Pages(30)) << "a mixture of two records";
}

TEST_F(HistoryTest, DamagedRecordsAreBoundedOrLeftOut) {
  const auto a = member("a");
  a->reap(free_pages(100));
  PoolFile raw;
  map(raw);
  layout::Moment& good = raw.mapped()->moments[3600 % 600];
  good.tenants = ~0U;
  good.pool = ~0ULL;
  good.charged = 5;
  good.of[1].place = ~0U;
  raw.mapped()->moments[1].second = 3601;  // in a place that it has not
  raw.mapped()->moments[2].second = ~0ULL;
  raw.mapped()->moments[3].second = 600 * 1000 + 3 + 1;  // to come
  const auto seen = moments();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].pool, Pages(layout::kMaxPoolPages));
  EXPECT_EQ(seen[0].tenants.size(), 32U);
  EXPECT_EQ(seen[0].tenants[1].name, "");
  // A time to come in the header does not stop the writing.
  raw.mapped()->header.last_moment = ~0ULL;
  clock_.advance(seconds(1));
  a->reap(free_pages(100));
  EXPECT_EQ(moments().size(), 2U);
}

}  // namespace
}  // namespace kvcached::ledger
