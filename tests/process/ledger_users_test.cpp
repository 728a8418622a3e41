// A pool that several users share through a directory of their group.
#include <gmock/gmock.h>
#include <grp.h>
#include <sched.h>
#include <sys/stat.h>

#include "policy/ledger/control.hpp"
#include "tests/process/ledger_child.hpp"

namespace kvcached::ledger {
namespace {

constexpr gid_t kGroup = 54'321;
constexpr gid_t kOtherGroup = 54'322;
constexpr uid_t kFirst = 54'001;
constexpr uid_t kSecond = 54'002;
constexpr uid_t kStranger = 54'003;

bool become(uid_t user, gid_t group) {
  ::umask(077);  // as strict as it gets
  return ::setgroups(0, nullptr) == 0 && ::setgid(group) == 0 && ::setuid(user) == 0;
}

class LedgerUsersTest : public PoolFolder {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become other users";
    path_ += "/shared";
    ASSERT_EQ(::chmod(root_.c_str(), 0755), 0);
    ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
    ASSERT_EQ(::chown(path_.c_str(), 0, kGroup), 0);
    ASSERT_EQ(::chmod(path_.c_str(), 02770), 0);
  }

  // A member of another user, which says what it got and stays until it is killed.
  std::unique_ptr<Child> join_as(uid_t user, const std::string& tenant, std::uint64_t pages,
                                 const char* stop_at = nullptr) {
    return std::make_unique<Child>([this, user, tenant, pages, stop_at](Child& self) {
      if (!become(user, kGroup)) return 1;
      if (stop_at != nullptr) signal_at(stop_at, SIGSTOP);
      const auto ledger = Ledger::open(request(100), clock_, refusal_, complaint_);
      if (!ledger || !ledger->join({tenant, {Pages(10), Pages::max(), 100}, "test"}, complaint_)) {
        self.say(-2);
        return 2;
      }
      self.say(ledger->charge(Pages(pages)) ? 1 : 0);
      ::pause();
      return 0;
    });
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      all.push_back(entry.path().filename().string());
    }
    return all;
  }
  // What a stranger's `call` answers: one line, or nothing.
  std::string stranger(const std::function<std::string()>& call, gid_t group = kOtherGroup) {
    std::array<int, 2> lines{};
    EXPECT_EQ(::pipe(lines.data()), 0);
    Child child([&](Child&) {
      if (!become(kStranger, group)) return 1;
      const std::string line = call();
      return ::write(lines[1], line.data(), line.size()) == static_cast<ssize_t>(line.size()) ? 0
                                                                                              : 1;
    });
    EXPECT_EQ(child.wait(), 0);
    ::close(lines[1]);
    std::array<char, 1024> line{};
    const ssize_t size = ::read(lines[0], line.data(), line.size());
    ::close(lines[0]);
    std::string text(line.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
};

TEST_F(LedgerUsersTest, UsersOfAGroupShareOnePool) {
  const auto first = join_as(kFirst, "first", 30);
  ASSERT_EQ(first->hear(), 1);
  struct stat status {};
  ASSERT_EQ(::stat(file().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0660U) << "the umask must not count";
  EXPECT_EQ(status.st_gid, kGroup);
  EXPECT_EQ(status.st_uid, kFirst);

  const auto second = join_as(kSecond, "second", 60);
  ASSERT_EQ(second->hear(), 1);
  const auto root = member("root");
  EXPECT_EQ(root->snapshot().charged, Pages(90));
  EXPECT_FALSE(root->charge(Pages(11)));
  second->kill_and_wait();
  const Snapshot books = root->snapshot();
  EXPECT_EQ(books.charged, Pages(30)) << "a death is seen across users";
  EXPECT_EQ(books.limbo, Pages(60));
}

TEST_F(LedgerUsersTest, AMakerThatIsSlowKeepsNobodyWaitingAndJoinsWhoWasFaster) {
  for (const char* point : {"create.named", "create.filled", "create.whole"}) {
    const auto first = join_as(kFirst, "first", 10, point);
    first->wait_stopped();
    const auto second = join_as(kSecond, "second", 20);
    EXPECT_EQ(second->hear(), 1) << point;
    first->signal(SIGCONT);
    EXPECT_EQ(first->hear(), 1) << point;
    EXPECT_EQ(open()->snapshot().charged, Pages(30)) << point;
    EXPECT_THAT(names(), testing::ElementsAre(file_name(gpu_))) << point;
    ASSERT_EQ(::unlink(file().c_str()), 0);
  }
}

TEST_F(LedgerUsersTest, AllThatStartAtTheSameInstantJoinOnePool) {
  constexpr int kUsers = 12;
  constexpr int kRounds = 15;
  for (int round = 0; round < kRounds; ++round) {
    const SharedNumber ready;
    std::vector<std::unique_ptr<Child>> users;
    for (int i = 0; i < kUsers; ++i) {
      users.push_back(std::make_unique<Child>([&, i](Child& self) {
        if (!become(kFirst + static_cast<uid_t>(i % 3), kGroup)) return 1;
        ++*ready;
        while (*ready < kUsers) ::sched_yield();
        const auto ledger = Ledger::open(request(100), clock_, refusal_, complaint_);
        const bool in = ledger && ledger->join({std::to_string(i), {}, "test"}, complaint_) &&
                        ledger->charge(Pages(1));
        if (!in) std::fprintf(stderr, "%s\n", complaint_.c_str());
        self.say(in ? 1 : 0);
        ::pause();
        return 0;
      }));
    }
    for (const auto& user : users) EXPECT_EQ(user->hear(), 1);
    EXPECT_EQ(open()->snapshot().charged, Pages(kUsers));
    EXPECT_THAT(names(), testing::ElementsAre(file_name(gpu_)));
    users.clear();
    ASSERT_EQ(::unlink(file().c_str()), 0);
    if (HasFailure()) return;
  }
}

TEST_F(LedgerUsersTest, AStrangerIsRefusedInOneLine) {
  const auto first = join_as(kFirst, "first", 30);
  ASSERT_EQ(first->hear(), 1);
  const auto open = [&] {
    return Ledger::open(request(100), clock_, refusal_, complaint_) ? "in" : complaint_;
  };
  const std::string outside = stranger(open);
  EXPECT_THAT(outside, testing::StartsWith("pool " + path_ + "/GPU-"));
  EXPECT_THAT(outside, testing::HasSubstr("belongs to user 0; set KVCACHED_DIR"));
  // A directory that everybody may enter changes nothing.
  ASSERT_EQ(::chmod(path_.c_str(), 02775), 0);
  EXPECT_THAT(stranger(open), testing::HasSubstr("belongs to user 54001; set KVCACHED_DIR"));
}

TEST_F(LedgerUsersTest, OnlyOwnerAndGroupChangeAPool) {
  const auto first = join_as(kFirst, "first", 30);
  ASSERT_EQ(first->hear(), 1);
  const Size size{bytes_of(Pages(50)), 0, false};
  std::uint32_t order = 0;
  const std::array<std::function<std::string()>, 3> changes{
      [&] {
        return change_limits(path_, gpu_, "first", {{}, size, {}}, clock_);
      },
      [&] { return order_trim(path_, gpu_, "first", order); },
      [&] { return change_pool(path_, gpu_, size, clock_); }};
  for (const mode_t mode : {02770U, 02775U}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    for (const auto& change : changes) {
      EXPECT_THAT(stranger(change), testing::HasSubstr("belongs to another user; its owner and its "
                                                       "directory's group may change it"));
      EXPECT_EQ(stranger(change, kGroup), "");
    }
  }
}

// Anybody could have made a directory that all may write, with whatever group it likes.
TEST_F(LedgerUsersTest, OnlyADirectoryMadeForAGroupIsShared) {
  for (const mode_t mode : {02750U, 0770U, 02777U, 03777U}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    const auto root = open();
    struct stat status {};
    ASSERT_EQ(::stat(file().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600U) << std::oct << mode;
    ASSERT_EQ(::unlink(file().c_str()), 0);
  }
}

TEST_F(LedgerUsersTest, AnotherUsersFileIsNotUsed) {
  const std::string mend = "; set KVCACHED_DIR";
  for (const mode_t mode : {0770U, 02777U, 0700U}) {
    open().reset();
    ASSERT_EQ(::chown(file().c_str(), kStranger, kGroup), 0);
    ASSERT_EQ(::chmod(file().c_str(), 0660), 0);
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    EXPECT_EQ(refused(), Refusal::foreign) << std::oct << mode;
    EXPECT_THAT(complaint_, testing::HasSubstr("belongs to user 54003" + mend));
    ASSERT_EQ(::chmod(path_.c_str(), 02770), 0);
    EXPECT_NE(open(), nullptr) << "the group's";
    ASSERT_EQ(::chown(file().c_str(), kStranger, kOtherGroup), 0);
    EXPECT_EQ(refused(), Refusal::foreign);
    ASSERT_EQ(::unlink(file().c_str()), 0);
  }
}

// Whoever names a directory may look at what its owner has there, though it would not join.
TEST_F(LedgerUsersTest, TheDirectoryOwnersFileIsShownAndNotChanged) {
  const auto member = this->member("first");
  ASSERT_EQ(::chmod(path_.c_str(), 0755), 0);
  ASSERT_EQ(::chown(file().c_str(), kStranger, kOtherGroup), 0);
  std::vector<std::string> complaints;
  EXPECT_THAT(read_pools(path_, complaints), testing::IsEmpty()) << "of neither";
  EXPECT_THAT(complaints, testing::ElementsAre(testing::HasSubstr("belongs to user 54003;")));
  ASSERT_EQ(::chown(path_.c_str(), kStranger, kOtherGroup), 0);
  EXPECT_THAT(read_pools(path_, complaints), testing::SizeIs(1));
  EXPECT_THAT(change_limits(path_, gpu_, "first", {{}, {}, 5}, clock_),
              testing::HasSubstr("belongs to user 54003;"));
  EXPECT_EQ(member->snapshot().tenants.at(0).limits.weight, 100U);
}

TEST_F(LedgerUsersTest, AFileThatAllMayWriteIsNotUsed) {
  open().reset();
  ASSERT_EQ(::chmod(file().c_str(), 0666), 0);
  EXPECT_EQ(refused(), Refusal::foreign);
  EXPECT_THAT(complaint_, testing::HasSubstr("may be written by every user; remove it"));
  ASSERT_EQ(::chmod(file().c_str(), 0664), 0);
  EXPECT_NE(open(), nullptr);
}

// Its name can be guessed.
TEST_F(LedgerUsersTest, ADefaultDirectoryOfAnotherIsRefused) {
  OpenRequest standard = request(100);
  standard.named = false;
  const auto answer = [&] {
    return Ledger::open(standard, clock_, refusal_, complaint_) ? "in" : complaint_;
  };
  EXPECT_EQ(answer(), "in");
  ASSERT_EQ(::chown(path_.c_str(), kStranger, kGroup), 0);
  ASSERT_EQ(::chmod(path_.c_str(), 02770), 0);
  EXPECT_THAT(answer(), testing::StartsWith("pool " + path_ + ": belongs to user 54003; set"));
  EXPECT_EQ(refusal_, Refusal::foreign);
  EXPECT_NE(open(), nullptr) << "the user has named it";
  ASSERT_EQ(::chown(path_.c_str(), 0, kGroup), 0);
  ASSERT_EQ(::chmod(path_.c_str(), 01777), 0);
  EXPECT_THAT(answer(), testing::StartsWith("pool " + path_ + ": may be written by every user;"));
  EXPECT_EQ(refusal_, Refusal::foreign);
  // Root could do anything anyway.
  ASSERT_EQ(::chmod(path_.c_str(), 02770), 0);
  ASSERT_EQ(::unlink(file().c_str()), 0);
  EXPECT_EQ(stranger(answer, kGroup), "in");
}

TEST_F(LedgerUsersTest, ALinkIsNoDefaultDirectory) {
  const std::string target = path_;
  path_ = root_ + "/link";
  ASSERT_EQ(::symlink(target.c_str(), path_.c_str()), 0);
  OpenRequest standard = request(100);
  standard.named = false;
  EXPECT_EQ(Ledger::open(standard, clock_, refusal_, complaint_), nullptr);
  EXPECT_EQ(refusal_, Refusal::unreachable);
  EXPECT_FALSE(std::filesystem::exists(target + "/" + file_name(gpu_)));
  EXPECT_NE(open(), nullptr) << "the user has named it";
}

}  // namespace
}  // namespace kvcached::ledger
