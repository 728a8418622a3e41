// Many processes at once, and processes of other PID namespaces.
#include <sched.h>
#include <sys/prctl.h>

#include <random>
#include <set>
#include <vector>

#include "tests/process/ledger_child.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kProcesses = 64;
constexpr int kSteps = 150;

// The whole file's lock.
bool held_elsewhere(const PoolFile& file) {
  const bool got = file.try_lock(LockKind::exclusive);
  if (got) file.unlock();
  return !got;
}

class LedgerManyTest : public PoolFolder {
 protected:
  // Charges and frees at random, and says at the end what it holds. `held` counts what all
  // processes really hold: never more than the pool.
  int load(const Child& self, unsigned seed, std::atomic<std::int64_t>& held) {
    std::mt19937 random(seed);
    const auto ledger = member("tenant " + std::to_string(seed % 8));
    for (int i = 0; i < kSteps; ++i) {
      const std::int64_t pages = 1 + static_cast<std::int64_t>(random() % 4);
      if (ledger->charge(Pages(static_cast<std::uint64_t>(pages)))) {
        if ((held += pages) > 100) return 1;
      }
      const auto part = static_cast<std::int64_t>(random() % (ledger->charged().value + 1));
      held -= part;
      ledger->uncharge(Pages(static_cast<std::uint64_t>(part)));
    }
    // Under load a lock may have been out of reach; an empty charge books what is left to book.
    while (!ledger->charge(Pages(0))) ::usleep(1000);
    self.say(static_cast<std::int64_t>(ledger->charged().value));
    ::pause();
    return 0;
  }
};

TEST_F(LedgerManyTest, SumsAreExact) {
  const auto witness = open();
  const SharedNumber held;
  std::vector<std::unique_ptr<Child>> children;
  for (unsigned i = 0; i < kProcesses; ++i) {
    children.push_back(
        std::make_unique<Child>([&, i](Child& self) { return load(self, i, *held); }));
  }
  std::int64_t sum = 0;
  for (const auto& child : children) {
    expect_sound(witness->snapshot());
    const std::int64_t charged = child->hear();
    ASSERT_GE(charged, 0);
    sum += charged;
  }
  EXPECT_EQ(sum, *held);
  const Snapshot books = witness->snapshot();
  expect_sound(books);
  EXPECT_EQ(books.charged, Pages(static_cast<std::uint64_t>(sum)));
  EXPECT_EQ(books.members.size(), std::size_t{kProcesses});
  EXPECT_EQ(books.tenants.size(), 8U);
  children.clear();
  EXPECT_EQ(witness->reap(free_pages(100)), Pages(0));
  EXPECT_EQ(witness->snapshot().free, Pages(100));
}

TEST_F(LedgerManyTest, OnePoolOutOfManyCreators) {
  std::vector<std::unique_ptr<Child>> children;
  for (unsigned i = 0; i < 16; ++i) {
    children.push_back(std::make_unique<Child>([&](Child& self) {
      const auto ledger = member("same", 10);
      while (!ledger->charge(Pages(1))) ::usleep(1000);  // the lock may be out of reach
      self.say(1);
      ::pause();
      return 0;
    }));
  }
  for (const auto& child : children) EXPECT_EQ(child->hear(), 1);
  const Snapshot books = open()->snapshot();
  EXPECT_EQ(books.charged, Pages(16));
  EXPECT_EQ(books.tenants.size(), 1U);
}

// Runs `body` as process 1 of a new PID namespace, after telling the parent its outer number, or 0
// if that may not be. The child ends with it, and it with the child.
int in_namespace(const Child& self, const std::function<int()>& body) {
  std::array<int, 2> gate{};
  if (::unshare(CLONE_NEWPID) != 0 || ::pipe(gate.data()) != 0) {
    self.say(0);
    return 0;
  }
  const pid_t init = ::fork();
  if (init == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    char byte = 0;
    ::_exit(::read(gate[0], &byte, 1) == 1 ? body() : 1);
  }
  self.say(init);
  if (::write(gate[1], "", 1) != 1) return 1;
  int status = 0;
  ::waitpid(init, &status, 0);
  return 0;
}

TEST_F(LedgerManyTest, MembersOfOtherPidNamespacesLiveAndDieAlike) {
  const auto witness = member("witness");
  const auto start = [&](const std::string& name) {
    return std::make_unique<Child>([this, name](Child& self) {
      return in_namespace(self, [&] {
        const auto ledger = member(name);
        self.say(ledger->charge(Pages(20)) ? ::getpid() : 0);
        ::pause();
        return 0;
      });
    });
  };
  const auto a = start("a");
  const std::int64_t init = a->hear();
  if (init == 0) GTEST_SKIP() << "needs the right to make PID namespaces";
  ASSERT_EQ(a->hear(), 1);
  const auto b = start("b");
  const std::int64_t other_init = b->hear();
  ASSERT_EQ(b->hear(), 1) << "both are process 1";
  witness->reap(Bytes(0));
  EXPECT_EQ(witness->snapshot().charged, Pages(40));
  // Their numbers are told apart.
  std::set<std::uint64_t> namespaces;
  for (const MemberState& one : witness->snapshot().members) {
    namespaces.insert(one.pid_namespace);
    EXPECT_EQ(one.pid, one.tenant == "witness" ? ::getpid() : 1) << one.tenant;
    EXPECT_EQ(one.pid_namespace == pid_namespace(), one.tenant == "witness") << one.tenant;
  }
  EXPECT_EQ(namespaces.size(), 3U);
  ::kill(static_cast<pid_t>(init), SIGKILL);
  a->wait();
  const Snapshot books = witness->snapshot();
  EXPECT_EQ(books.charged, Pages(20));
  EXPECT_EQ(books.limbo, Pages(20));
  ::kill(static_cast<pid_t>(other_init), SIGKILL);
  b->wait();
}

// A robust mutex in shared memory fails here: the kernel takes the dead waiter for the owner,
// since both have thread 1 of their namespaces.
TEST_F(LedgerManyTest, WaiterKilledInAnotherNamespaceLeavesTheLockWithItsHolder) {
  const auto third = member("third");
  Child holder([&](Child& self) {
    return in_namespace(self, [&] {
      const auto ledger = member("holder");
      test_point_hook = [](const char* name) {
        // Not SIGSTOP: process 1 of a namespace ignores its own.
        if (std::strcmp(name, "charge.before") == 0) ::pause();
      };
      self.say(1);
      return ledger->charge(Pages(1)) ? 0 : 1;
    });
  });
  const std::int64_t holder_init = holder.hear();
  if (holder_init == 0) GTEST_SKIP() << "needs the right to make PID namespaces";
  ASSERT_EQ(holder.hear(), 1);
  PoolFile probe(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  while (!held_elsewhere(probe)) ::usleep(1000);
  Child waiter([&](Child& self) {
    return in_namespace(self, [&] {
      // The lock's second, so that the kill comes in the midst of waiting.
      self.say(1);
      probe.lock_within(LockKind::exclusive, 60'000);
      return 1;
    });
  });
  const std::int64_t waiter_init = waiter.hear();
  ASSERT_EQ(waiter.hear(), 1);
  ::kill(static_cast<pid_t>(waiter_init), SIGKILL);
  waiter.wait();
  EXPECT_TRUE(held_elsewhere(probe));
  EXPECT_FALSE(third->charge(Pages(1)));
  ::kill(static_cast<pid_t>(holder_init), SIGKILL);
  holder.wait();
  EXPECT_TRUE(third->charge(Pages(1)));
}

}  // namespace
}  // namespace kvcached::ledger
