// One process in the pool: what its caches wish for together, and its name where it was given none.
#include "shim/member/member.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

#include "shim/member/room.hpp"
#include "tests/unit/cache/fake_driver.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::test {
namespace {

// Beside one that holds the whole pool idle.
class MemberTest : public ledger::PoolFolder {
 protected:
  void SetUp() override {
    peer = member("peer");
    ASSERT_TRUE(peer->charge(Pages(100)));
    ledger::Figures idle;
    idle.stripe = Pages(5);
    peer->publish(idle);
    Settings settings;
    settings.directory = path_;
    settings.directory_named = true;
    own = member::Member::join(settings, gpu_, bytes_of(Pages(100)), std::nullopt, clock_);
    ASSERT_NE(own, nullptr);
  }

  std::unique_ptr<ledger::Ledger> peer;
  std::unique_ptr<member::Member> own;
};

TEST_F(MemberTest, AWishStandsUntilTheLastHasDroppedIt) {
  own->begin_wish();
  EXPECT_FALSE(own->charge(Pages(10), Pages(30)));
  own->begin_wish();
  EXPECT_FALSE(own->charge(Pages(10), Pages(20)));
  own->drop_wish();
  EXPECT_GE(peer->duty().reclaim, Pages(20));
  own->drop_wish();
  EXPECT_EQ(peer->duty().reclaim, Pages());

  EXPECT_FALSE(own->charge(Pages(10), Pages(30)));
  EXPECT_GE(peer->duty().reclaim, Pages(30));
  own->drop_wish();
  EXPECT_EQ(peer->duty().reclaim, Pages()) << "one that did not say so first";
}

TEST_F(MemberTest, PlainMemoryThatGivesUpEndsNobodyElsesWish) {
  FakeDriver driver(Pages(100));
  own->begin_wish();
  EXPECT_FALSE(own->charge(Pages(10), Pages(30)));
  EXPECT_FALSE(member::wait_for_others(*own, driver, DeviceId{0}, bytes_of(Pages(1'000)),
                                       clock_.now(), clock_));
  EXPECT_GE(peer->duty().reclaim, Pages(30));
}

// As the first process of a container has it. Empty: not allowed here.
std::string name_in_a_container() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t outside = ::fork();
  if (outside == 0) {
    if (::unshare(CLONE_NEWPID) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) ::_exit(0);
    const pid_t inside = ::fork();
    if (inside == 0) {
      ::setsid();
      const std::string name = member::unnamed_tenant();
      ::_exit(::write(ends[1], name.data(), name.size()) < 0 ? 1 : 0);
    }
    ::waitpid(inside, nullptr, 0);
    ::_exit(0);
  }
  ::close(ends[1]);
  std::array<char, 256> room{};
  const ssize_t size = ::read(ends[0], room.data(), room.size());
  ::close(ends[0]);
  ::waitpid(outside, nullptr, 0);
  return {room.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

TEST(UnnamedTenant, IsAnotherInEachContainer) {
  const std::string one = name_in_a_container();
  if (one.empty()) GTEST_SKIP() << "no PID namespaces";
  EXPECT_NE(one, name_in_a_container());
  EXPECT_NE(one, member::unnamed_tenant());
  EXPECT_EQ(member::unnamed_tenant(), member::unnamed_tenant());
}

}  // namespace
}  // namespace kvcached::test
