// The pool is a share of the GPU; what it can give follows what plain memory leaves of that.
#include "policy/ledger/room.hpp"

#include <gtest/gtest.h>

#include "policy/ledger/control.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

constexpr std::uint64_t kGpu = 1000;
constexpr std::uint64_t kPool = 900;

static_assert(shortfall_of(Pages(900), Pages(950), Pages(0), Pages(0)) == Pages(0));
static_assert(shortfall_of(Pages(900), Pages(500), Pages(100), Pages(0)) == Pages(300));
static_assert(shortfall_of(Pages(900), Pages(500), Pages(100), Pages(50)) == Pages(350));
static_assert(shortfall_of(Pages(900), Pages(10), Pages(0), Pages(50)) == Pages(900));

// A GPU of 1000 pages with a pool of 900, and 20 pages outside of it.
class RoomTest : public PoolFolder {
 protected:
  std::unique_ptr<Ledger> joined(std::string_view tenant, std::uint64_t min = 0,
                                 std::uint64_t gpu = kGpu) {
    auto ledger =
        Ledger::open({path_, gpu_, Pages(kPool), Pages(gpu)}, clock_, refusal_, complaint_);
    EXPECT_TRUE(ledger &&
                ledger->join({tenant, {Pages(min), Pages::max(), 100}, "test"}, complaint_))
        << complaint_;
    return ledger;
  }
  static void tell(Ledger& member, std::uint64_t plain, std::uint64_t peak,
                   std::uint64_t used = 0) {
    Figures told = figures(used, 1);
    told.plain = bytes_of(Pages(plain));
    told.plain_peak = bytes_of(Pages(peak));
    member.publish(told);
  }
  // What the driver says while so many pages are plain, seen `looks` times.
  static void look(Ledger& member, std::uint64_t plain, int looks = 2) {
    const std::uint64_t held =
        20 + plain + (member.snapshot().charged + member.snapshot().limbo).value;
    for (int i = 0; i < looks; ++i) member.reap(free_pages(kGpu - std::min(held, kGpu)));
  }
};

TEST_F(RoomTest, PlainMemoryTakesFromThePool) {
  const auto a = joined("a");
  const auto b = joined("b");
  ASSERT_TRUE(a->charge(Pages(100)));
  look(*a, 0);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0));
  tell(*b, 400, 400);
  look(*a, 400);
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.shortfall, Pages(320));
  EXPECT_EQ(books.free, Pages(480)) << "with 100 charged, 400 plain and 20 outside: all of the GPU";
  EXPECT_EQ(a->reach(), Pages(580));
  EXPECT_FALSE(b->charge(Pages(481)));
  EXPECT_TRUE(b->charge(Pages(480)));
  clock_.advance(std::chrono::seconds(1));
  look(*a, 400);
  std::vector<std::string> complaints;
  const auto histories = read_histories(path_, clock_.now(), complaints);
  EXPECT_EQ(histories.at(0).moments.back().free, Pages(0)) << "history knows, too";
  // Charges of the pool itself change nothing.
  look(*b, 400);
  EXPECT_EQ(b->snapshot().shortfall, Pages(320));
  // What is given back is there at once.
  tell(*b, 0, 0);
  look(*a, 0, 1);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0));
  EXPECT_TRUE(a->charge(Pages(320)));
}

TEST_F(RoomTest, TheHighWaterMarkStaysReserved) {
  const auto a = joined("a");
  auto b = joined("b");
  tell(*a, 10, 60);
  tell(*b, 300, 400);
  look(*a, 310);
  EXPECT_EQ(a->snapshot().shortfall, Pages(900 - (1000 - 20 - 60 - 400)));
  EXPECT_FALSE(a->charge(Pages(521)));
  EXPECT_TRUE(a->charge(Pages(520)));
  // It reaches it again: no page of the pool is in the way.
  tell(*b, 400, 400);
  look(*a, 410);
  EXPECT_EQ(a->snapshot().shortfall, Pages(380));
  EXPECT_EQ(a->snapshot().free, Pages(0));
  b.reset();
  look(*a, 10);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0)) << "nothing is kept for those that left";
}

TEST_F(RoomTest, WhatIsMissingOnceMayBeOnItsWay) {
  const auto a = joined("a");
  look(*a, 400, 1);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0));
  look(*a, 0, 1);
  look(*a, 400, 1);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0));
  look(*a, 400, 1);
  EXPECT_EQ(a->snapshot().shortfall, Pages(320));
}

TEST_F(RoomTest, IdleMemoryComesBackForPlainMemory) {
  const auto a = joined("a");
  const auto b = joined("b");
  ASSERT_TRUE(a->charge(Pages(800)));
  tell(*a, 0, 0, 200);
  const std::uint32_t rung = a->rung();
  tell(*b, 150, 400);  // grew to 400 before: the next time it must find them
  look(*b, 150);
  EXPECT_EQ(b->snapshot().shortfall, Pages(320));
  EXPECT_GE(a->duty().reclaim, Pages(220));
  EXPECT_NE(a->rung(), rung);
  a->uncharge(Pages(220));
  EXPECT_EQ(a->duty().reclaim, Pages(0));
}

TEST_F(RoomTest, MinimumsShareWhatIsThere) {
  const auto a = joined("a", 400);
  const auto b = joined("b", 400);
  tell(*a, 0, 0);
  tell(*b, 500, 500);
  look(*a, 500);
  EXPECT_TRUE(a->charge(Pages(200)));
  EXPECT_TRUE(b->charge(Pages(180))) << "the floors no longer fit, and neither takes all";
}

TEST_F(RoomTest, OnlyWhatIsThereIsPromised) {
  const auto a = joined("a", 100);
  tell(*a, 400, 400);
  look(*a, 400);  // leaves 580
  const auto b = joined("b", 481);
  const auto c = joined("c", 480);
  EXPECT_EQ(b->limits().min, Pages());
  EXPECT_EQ(c->limits().min, Pages(480));
  const auto set_min = [&](std::uint64_t min) {
    const Size size{bytes_of(Pages(min)), 0, false};
    return change_limits(path_, gpu_, "a", {size, {}, {}}, clock_);
  };
  EXPECT_EQ(set_min(101),
            "a: min=202MiB with the other minimums of 960MiB exceeds the pool of 1800MiB, of "
            "which plain memory leaves 1160MiB; write at most 200MiB");
  EXPECT_EQ(set_min(100), "");
  // What could be promised once may be lowered, though there is less still.
  tell(*a, 600, 600);
  look(*a, 600);
  EXPECT_EQ(set_min(90), "");
  EXPECT_NE(set_min(91), "");
}

TEST_F(RoomTest, TheFirstMemberIsPromisedWhatItFoundFree) {
  const auto first = [&](std::string_view tenant, std::uint64_t min, std::uint64_t free) {
    auto ledger =
        Ledger::open({path_, gpu_, Pages(kPool), Pages(kGpu)}, clock_, refusal_, complaint_);
    EXPECT_TRUE(ledger->join({tenant, {Pages(min)}, "test", free_pages(free)}, complaint_));
    return ledger;
  };
  EXPECT_EQ(first("a", 301, 300)->limits().min, Pages(0));
  const auto a = first("a", 300, 300);
  EXPECT_EQ(a->limits().min, Pages(300));
  EXPECT_EQ(a->snapshot().shortfall, Pages(600));
  // Beside others a single look proves nothing.
  const auto b = first("b", 0, 200);
  EXPECT_EQ(b->snapshot().shortfall, Pages(600));
}

TEST_F(RoomTest, ASmallerPoolLacksNoMoreThanItMust) {
  const auto a = joined("a");
  ASSERT_TRUE(a->charge(Pages(500)));
  tell(*a, 400, 400);
  look(*a, 400);
  ASSERT_EQ(a->snapshot().shortfall, Pages(320));
  const auto limit = [&](std::uint64_t pages) {
    EXPECT_EQ(change_pool(path_, gpu_, {bytes_of(Pages(pages)), 0, false}, clock_), "");
  };
  limit(600);
  EXPECT_EQ(a->snapshot().shortfall, Pages(20));
  EXPECT_EQ(a->duty().reclaim, Pages(0)) << "580 are there as before";
  limit(540);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0));
  EXPECT_EQ(a->duty().reclaim, Pages(0));
  limit(900);
  look(*a, 400);
  limit(990);
  EXPECT_EQ(a->snapshot().free, Pages(80)) << "a larger pool makes no memory";
}

TEST_F(RoomTest, WithoutTheGpusSizeThePoolIsWhatItSays) {
  const auto a = joined("a", 0, 0);
  look(*a, 400);
  EXPECT_EQ(a->snapshot().shortfall, Pages(0));
}

TEST_F(RoomTest, TheNextPoolStartsAfresh) {
  auto a = joined("a");
  look(*a, 400);
  ASSERT_NE(a->snapshot().shortfall, Pages(0));
  a.reset();
  EXPECT_EQ(joined("b")->snapshot().shortfall, Pages(0));
}

// What is kept for plain memory is free on the GPU, but proves nothing of the dead's memory.
TEST_F(RoomTest, ReservedMemoryIsNoProofForLimbo) {
  const auto a = joined("a");
  auto b = joined("b");
  ASSERT_TRUE(b->charge(Pages(100)));
  tell(*a, 300, 700);
  look(*a, 300);
  b->abandon();
  const auto gpu_free = free_pages(1000 - 20 - 300 - 100);
  EXPECT_EQ(a->reap(gpu_free), Pages(100));
  EXPECT_EQ(a->reap(gpu_free), Pages(100));
}

}  // namespace
}  // namespace kvcached::ledger
