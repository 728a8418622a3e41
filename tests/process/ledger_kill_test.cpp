// SIGKILL at every marked point of the ledger: whatever is left adds up, covers the floors, and
// counts at least what the dead really held.
#include "policy/ledger/control.hpp"
#include "tests/process/ledger_child.hpp"

namespace kvcached::ledger {
namespace {

// A marked point as a part of a test's name.
std::string point_name(const testing::TestParamInfo<const char*>& each) {
  std::string name = each.param;
  name[name.find('.')] = '_';
  return name;
}

class LedgerKillTest : public PoolFolder, public testing::WithParamInterface<const char*> {};

// Runs through every marked point, keeping `held` at what a real process would hold at each.
int live_and_die(const OpenRequest& request, const Clock& clock, std::atomic<std::int64_t>& held,
                 const char* point) {
  signal_at(point, SIGKILL);
  Refusal refusal = Refusal::ok;
  std::string complaint;
  auto ledger = Ledger::open(request, clock, refusal, complaint);
  if (!ledger || !ledger->join({"victim", {Pages(5), Pages(60), 100}, "victim"}, complaint)) {
    return 1;
  }
  if (!ledger->charge(Pages(10))) return 2;
  held = 10;
  if (ledger->charge(Pages(51), Pages(61))) return 4;  // above its maximum: a claim
  ledger->publish({});
  held = 7;  // memory goes before its charge
  ledger->uncharge(Pages(3));
  ledger->reap(free_pages(1000));
  ledger.reset();
  return 3;  // the point was never reached
}

TEST_P(LedgerKillTest, BooksStaySound) {
  const auto witness = member("witness", 20);
  ASSERT_TRUE(witness->charge(Pages(5)));
  const auto ghost = member("ghost");
  ASSERT_TRUE(ghost->charge(Pages(15)));
  ghost->abandon();  // dead and not buried: the victim is to find it
  const SharedNumber held;
  Child victim([&](Child&) { return live_and_die(request(100), clock_, *held, GetParam()); });
  const int status = victim.wait();
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
  ASSERT_EQ(WTERMSIG(status), SIGKILL);

  for (int look = 0; look < 2; ++look) {
    const Snapshot books = witness->snapshot();
    expect_sound(books);
    Pages victims;
    for (const MemberState& one : books.members) {
      if (one.tenant == "victim") victims += one.charged;
    }
    EXPECT_GE(victims, Pages(static_cast<std::uint64_t>((*held).load())));
    EXPECT_GE(books.free, Pages(15)) << "the witness's floor";
    EXPECT_EQ(books.charged, Pages(5));
    witness->reap(free_pages(0));  // proves nothing free: limbo must stay
  }
  EXPECT_TRUE(witness->charge(Pages(15))) << "the lock must have gone with the dead";
  EXPECT_EQ(witness->reap(free_pages(1000)), Pages(0));
  const Snapshot books = witness->snapshot();
  expect_sound(books);
  EXPECT_EQ(books.free, Pages(80));
  EXPECT_EQ(books.members.size(), 1U);
  EXPECT_EQ(books.tenants.size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, LedgerKillTest,
                         testing::Values("join.locked", "reap.dated", "reap.buried", "join.filled",
                                         "join.live", "charge.before", "charge.after",
                                         "charge.claimed", "plan.half", "publish.half",
                                         "uncharge.before", "uncharge.after", "reap.emptied",
                                         "history.half", "history.written", "leave.before"),
                         point_name);

class LedgerDeathTest : public PoolFolder {
 protected:
  std::vector<Moment> moments() {
    std::vector<std::string> complaints;
    return read_histories(path_, clock_.now(), complaints).at(0).moments;
  }
};

TEST_F(LedgerDeathTest, HistoryKilledHalfWayIsNotShownAndWrittenAgain) {
  const auto witness = member("witness");
  ASSERT_TRUE(witness->charge(Pages(10)));
  Child writer([&](Child&) {
    const auto ledger = member("writer");
    if (!ledger->charge(Pages(20))) return 1;
    signal_at("history.half", SIGKILL);
    ledger->reap(free_pages(100));
    return 2;
  });
  ASSERT_TRUE(WIFSIGNALED(writer.wait()));
  EXPECT_TRUE(moments().empty()) << "it is torn";
  clock_.advance(std::chrono::seconds(1));
  witness->reap(free_pages(0));
  ASSERT_EQ(moments().size(), 1U);
  EXPECT_EQ(moments()[0].charged, Pages(10));
  EXPECT_EQ(moments()[0].limbo, Pages(20));
}

class ControlKillTest : public PoolFolder, public testing::WithParamInterface<const char*> {};

// Whatever a dying command has written of a change holds, and the next member that looks carries it
// out.
TEST_P(ControlKillTest, WhatIsWrittenIsCarriedOutByTheMembers) {
  const auto idle = member("idle");
  const auto other = member("other", 10);
  ASSERT_TRUE(idle->charge(Pages(80)));
  Figures figures;
  figures.stripe = Pages(1);
  idle->publish(figures);
  const auto size = [](std::uint64_t count) { return Size{bytes_of(Pages(count)), 0, false}; };
  Child command([&](Child&) {
    signal_at(GetParam(), SIGKILL);
    if (std::string_view(GetParam()) == "limit.unplanned") {
      change_pool(path_, gpu_, size(60), clock_);
    } else {
      change_limits(path_, gpu_, "idle", {size(20), size(30), {}}, clock_);
    }
    return 1;
  });
  ASSERT_TRUE(WIFSIGNALED(command.wait()));
  other->reap(free_pages(100));
  const Pages asked = idle->duty().reclaim;
  EXPECT_GE(asked, Pages(30));
  idle->uncharge(asked);
  EXPECT_EQ(idle->duty().reclaim, Pages(0));
  EXPECT_TRUE(other->charge(Pages(10))) << "the lock must have gone with the dead";
  expect_sound(other->snapshot());
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, ControlKillTest,
                         testing::Values("set.half", "set.unplanned", "limit.unplanned"),
                         point_name);

class CreatorKillTest : public PoolFolder, public testing::WithParamInterface<const char*> {
 protected:
  std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(path_), {});
  }
};

TEST_P(CreatorKillTest, WhatItLeftIsNoPoolAndGoesWithTheNext) {
  for (int i = 0; i < 3; ++i) {
    Child creator([&](Child&) {
      signal_at(GetParam(), SIGKILL);
      Ledger::open(request(50), clock_, refusal_, complaint_);
      return 1;
    });
    ASSERT_TRUE(WIFSIGNALED(creator.wait()));
    EXPECT_FALSE(std::filesystem::exists(file()));
    EXPECT_EQ(files(), 1);
  }
  EXPECT_EQ(open(100)->snapshot().free, Pages(100));
  EXPECT_EQ(files(), 1);
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, CreatorKillTest,
                         testing::Values("create.named", "create.filled", "create.whole"),
                         point_name);

TEST_F(LedgerDeathTest, PoolKilledWhileItWasBegunAnewIsReplaced) {
  open(30).reset();
  std::filesystem::resize_file(file(), 0);
  Child creator([&](Child&) {
    signal_at("create.filled", SIGKILL);
    Ledger::open(request(50), clock_, refusal_, complaint_);
    return 1;
  });
  ASSERT_TRUE(WIFSIGNALED(creator.wait()));
  EXPECT_EQ(open(100)->snapshot().free, Pages(100));
}

TEST_F(LedgerDeathTest, KilledMemberIsSeenDeadAtOnce) {
  const auto witness = member("witness");
  Child victim([&](Child& self) {
    const auto ledger = member("victim", 30);
    self.say(ledger->charge(Pages(60)) ? 1 : 0);
    ::pause();
    return 0;
  });
  ASSERT_EQ(victim.hear(), 1);
  EXPECT_EQ(witness->snapshot().charged, Pages(60));
  victim.kill_and_wait();
  const Snapshot books = witness->snapshot();
  EXPECT_EQ(books.charged, Pages(0));
  EXPECT_EQ(books.limbo, Pages(60));
  EXPECT_FALSE(witness->charge(Pages(41)));
  EXPECT_EQ(witness->reap(free_pages(100)), Pages(0));
  EXPECT_TRUE(witness->charge(Pages(100)));
}

}  // namespace
}  // namespace kvcached::ledger
