// A stopped process that holds the lock delays the others once; after that they only try.
#include "tests/process/ledger_child.hpp"

namespace kvcached::ledger {
namespace {

int waits = 0;
int tries = 0;

class LedgerStopTest : public PoolFolder {
 protected:
  LedgerStopTest() {
    waits = tries = 0;
    test_point_hook = [](const char* name) {
      waits += std::strcmp(name, "lock.waited") == 0 ? 1 : 0;
      tries += std::strcmp(name, "lock.tried") == 0 ? 1 : 0;
    };
  }
  ~LedgerStopTest() override { test_point_hook = nullptr; }

  // Charges one page and stops itself on the way, with the lock in its hands.
  int stop_in_charge(const Child& self) {
    const auto ledger = member("stopped");
    self.say(1);
    for (int i = 0; i < 2; ++i) {
      signal_at("charge.before", SIGSTOP);
      if (!ledger->charge(Pages(1))) return 1;
      self.say(1);
    }
    ::pause();
    return 0;
  }
};

TEST_F(LedgerStopTest, OthersWaitOnceThenOnlyTry) {
  const auto other = member("other");
  ASSERT_TRUE(other->charge(Pages(10)));
  Child holder([&](Child& self) { return stop_in_charge(self); });
  ASSERT_EQ(holder.hear(), 1);
  holder.wait_stopped();

  EXPECT_FALSE(other->charge(Pages(1)));
  EXPECT_EQ(waits, 1);
  EXPECT_EQ(tries, 0);
  EXPECT_FALSE(other->charge(Pages(1)));
  other->uncharge(Pages(4));
  other->reap(Bytes(0));
  EXPECT_EQ(waits, 1);
  EXPECT_EQ(tries, 3);
  EXPECT_EQ(other->charged(), Pages(6));
  // Not booked yet: the account overstates.
  EXPECT_EQ(other->snapshot().charged, Pages(10));

  holder.signal(SIGCONT);
  ASSERT_EQ(holder.hear(), 1);
  holder.wait_stopped();  // and once more
  waits = tries = 0;
  // Still only trying, since it never got the lock.
  EXPECT_FALSE(other->charge(Pages(1)));
  EXPECT_EQ(waits, 0);
  EXPECT_EQ(tries, 1);

  holder.signal(SIGCONT);
  ASSERT_EQ(holder.hear(), 1);
  EXPECT_TRUE(other->charge(Pages(3)));
  const Snapshot books = other->snapshot();
  EXPECT_EQ(books.charged, Pages(6 + 3 + 2));
  expect_sound(books);
}

TEST_F(LedgerStopTest, WaitsAgainAfterTheLockWasFree) {
  const auto other = member("other");
  Child holder([&](Child& self) { return stop_in_charge(self); });
  ASSERT_EQ(holder.hear(), 1);
  holder.wait_stopped();
  EXPECT_FALSE(other->charge(Pages(1)));
  EXPECT_EQ(waits, 1);
  holder.kill_and_wait();
  EXPECT_TRUE(other->charge(Pages(1)));
  Child second([&](Child& self) { return stop_in_charge(self); });
  ASSERT_EQ(second.hear(), 1);
  second.wait_stopped();
  EXPECT_FALSE(other->charge(Pages(1)));
  EXPECT_EQ(waits, 2);
}

TEST_F(LedgerStopTest, NewcomersAreRefusedAndReadersAreNot) {
  Child holder([&](Child& self) { return stop_in_charge(self); });
  ASSERT_EQ(holder.hear(), 1);
  holder.wait_stopped();
  EXPECT_EQ(refused(), Refusal::unreachable);
  EXPECT_NE(complaint_.find("stopped"), std::string::npos) << complaint_;
  std::vector<std::string> complaints;
  EXPECT_EQ(read_pools(path_, complaints).size(), 1U);
  EXPECT_TRUE(complaints.empty());
}

TEST_F(LedgerStopTest, StoppedMembersPagesCountAsUsed) {
  const auto other = member("other");
  Child stopped([&](Child&) {
    const auto ledger = member("stopped");
    if (!ledger->charge(Pages(60))) return 1;
    ::raise(SIGSTOP);
    return 0;
  });
  stopped.wait_stopped();
  other->reap(free_pages(100));
  EXPECT_EQ(other->snapshot().charged, Pages(60));
  EXPECT_FALSE(other->charge(Pages(41)));
  EXPECT_TRUE(other->charge(Pages(40)));
}

}  // namespace
}  // namespace kvcached::ledger
