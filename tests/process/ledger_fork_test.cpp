// Fork and exec: a child shares the parent's locks until it lets go of its copies.
#include "tests/process/ledger_child.hpp"

namespace kvcached::ledger {
namespace {

class LedgerForkTest : public PoolFolder {
 protected:
  // In a child: joins, charges, says so.
  std::unique_ptr<Ledger> holder(const Child& self) {
    auto ledger = member("parent");
    self.say(ledger->charge(Pages(60)) ? 1 : 0);
    return ledger;
  }
};

TEST_F(LedgerForkTest, ChildThatAbandonsDoesNotKeepItsParentAlive) {
  const auto witness = member("witness");
  Child parent([&](Child& self) {
    const auto ledger = holder(self);
    if (::fork() == 0) {
      ledger->abandon();
      self.say(::getpid());
    }
    ::pause();
    return 0;
  });
  ASSERT_EQ(parent.hear(), 1);
  const std::int64_t grandchild = parent.hear();
  ASSERT_GT(grandchild, 1);
  EXPECT_EQ(witness->snapshot().charged, Pages(60)) << "the parent itself is still alive";
  parent.kill_and_wait();
  EXPECT_EQ(witness->snapshot().limbo, Pages(60));
  ASSERT_EQ(::kill(static_cast<pid_t>(grandchild), SIGKILL), 0) << "it must have lived until now";
}

TEST_F(LedgerForkTest, ExecLetsGoByItself) {
  const auto witness = member("witness");
  Child parent([&](Child& self) {
    const auto ledger = holder(self);
    std::array<int, 2> closed_on_exec{};
    if (::pipe2(closed_on_exec.data(), O_CLOEXEC) != 0) return 1;
    const pid_t child = ::fork();
    if (child == 0) {
      ::execl("/bin/sleep", "sleep", "60", nullptr);
      ::_exit(1);
    }
    ::close(closed_on_exec[1]);
    char byte = 0;
    if (::read(closed_on_exec[0], &byte, 1) != 0) return 1;
    self.say(child);
    ::pause();
    return 0;
  });
  ASSERT_EQ(parent.hear(), 1);
  const std::int64_t sleeper = parent.hear();
  ASSERT_GT(sleeper, 1);
  parent.kill_and_wait();
  EXPECT_EQ(witness->snapshot().limbo, Pages(60));
  ASSERT_EQ(::kill(static_cast<pid_t>(sleeper), SIGKILL), 0) << "it must have lived until now";
}

TEST_F(LedgerForkTest, ChildJoinsAsAMemberOfItsOwn) {
  const auto ledger = member("parent");
  ASSERT_TRUE(ledger->charge(Pages(10)));
  Child child([&](Child& self) {
    ledger->abandon();
    const auto own = member("child");
    if (!own->charge(Pages(20)) || ledger->charge(Pages(1))) return 1;
    self.say(1);
    ::pause();
    return 0;
  });
  ASSERT_EQ(child.hear(), 1);
  const Snapshot books = ledger->snapshot();
  EXPECT_EQ(books.charged, Pages(30));
  EXPECT_EQ(books.members.size(), 2U);
  EXPECT_TRUE(ledger->charge(Pages(70)));
}

TEST_F(LedgerForkTest, DestructionInAChildLeavesTheParentsMembership) {
  auto ledger = member("parent");
  ASSERT_TRUE(ledger->charge(Pages(10)));
  Child child([&](Child&) {
    ledger.reset();
    return 0;
  });
  EXPECT_EQ(child.wait(), 0);
  const auto witness = member("witness");
  EXPECT_EQ(witness->snapshot().charged, Pages(10));
  EXPECT_TRUE(ledger->charge(Pages(1)));
}

}  // namespace
}  // namespace kvcached::ledger
