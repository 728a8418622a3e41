// Refusals that take a process of its own to provoke: other users, full file systems, limits.
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/process/ledger_child.hpp"

namespace kvcached::ledger {
namespace {

constexpr uid_t kStranger = 65534;

class LedgerRefusalTest : public PoolFolder {
 protected:
  // What a process sees that has first become what `become` makes of it; -1 if that failed.
  Refusal refusal_after(const std::function<bool()>& become, const std::string& expected_text) {
    Child child([&](Child& self) {
      if (!become()) {
        self.say(-1);
        return 0;
      }
      std::string complaint;
      Refusal refusal = Refusal::ok;
      const bool opened = Ledger::open(request(100), clock_, refusal, complaint) != nullptr;
      self.say(static_cast<std::int64_t>(refusal));
      self.say(!opened && complaint.find(expected_text) != std::string::npos &&
                       complaint.find('\n') == std::string::npos
                   ? 1
                   : 0);
      return 0;
    });
    const std::int64_t refusal = child.hear();
    if (refusal < 0) {
      impossible_ = true;
      return Refusal::ok;
    }
    EXPECT_EQ(child.hear(), 1) << "the complaint lacks: " << expected_text;
    return static_cast<Refusal>(refusal);
  }
  Refusal strangers_refusal() {
    EXPECT_EQ(::chmod(root_.c_str(), 0755), 0);
    return refusal_after([] { return ::setuid(kStranger) == 0; }, "belongs to user 0");
  }

  bool impossible_ = false;
};

TEST_F(LedgerRefusalTest, AnotherUsersDirectory) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  path_ += "/pool";
  const auto a = open();
  EXPECT_EQ(strangers_refusal(), Refusal::foreign);
}

TEST_F(LedgerRefusalTest, AnotherUsersEmptyDirectory) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  path_ += "/pool";
  ASSERT_EQ(::mkdir(path_.c_str(), 0755), 0);
  EXPECT_EQ(strangers_refusal(), Refusal::foreign);
}

TEST_F(LedgerRefusalTest, AnotherUsersFileInASharedDirectory) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  path_ += "/pool";
  const auto a = open();
  ASSERT_EQ(::chmod(path_.c_str(), 0777), 0);
  EXPECT_EQ(strangers_refusal(), Refusal::foreign);
}

TEST_F(LedgerRefusalTest, ReadersNameAnotherUsersPool) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  path_ += "/pool";
  const auto a = open();
  ASSERT_EQ(::chmod(root_.c_str(), 0755), 0);
  for (const mode_t mode : {0700U, 0755U}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    Child reader([&](Child& self) {
      std::vector<std::string> complaints;
      const bool none = ::setuid(kStranger) == 0 && read_pools(path_, complaints).empty();
      const bool named = complaints.size() == 1 &&
                         complaints[0].find("belongs to another user") != std::string::npos;
      self.say(none && named ? 1 : 0);
      return 0;
    });
    EXPECT_EQ(reader.hear(), 1) << mode;
  }
}

TEST_F(LedgerRefusalTest, FullFileSystemIsRefusedAtOnceAndFillsNothing) {
  path_ += "/small";
  ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
  const auto mount_small = [&] {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("none", path_.c_str(), "tmpfs", 0, "size=64k") == 0;
  };
  const Refusal refusal = refusal_after(mount_small, "no room for");
  if (impossible_) GTEST_SKIP() << "needs the right to mount";
  EXPECT_EQ(refusal, Refusal::full);
}

TEST_F(LedgerRefusalTest, ReadOnlyFileSystemWithAPoolAndWithout) {
  path_ += "/small";
  ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
  for (const bool with_pool : {false, true}) {
    const auto mount_read_only = [&] {
      if (::unshare(CLONE_NEWNS) != 0 ||
          ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          ::mount("none", path_.c_str(), "tmpfs", 0, "size=8m") != 0) {
        return false;
      }
      if (with_pool) open().reset();
      return ::mount("none", path_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
    };
    const Refusal refusal = refusal_after(
        mount_read_only, "Read-only file system; set KVCACHED_DIR to a writable directory");
    if (impossible_) GTEST_SKIP() << "needs the right to mount";
    EXPECT_EQ(refusal, Refusal::unreachable) << with_pool;
  }
}

TEST_F(LedgerRefusalTest, LimitOnFileSizesIsRefusedWithoutASignal) {
  const auto limit = [] {
    const rlimit small{65536, 65536};
    return ::setrlimit(RLIMIT_FSIZE, &small) == 0;
  };
  EXPECT_EQ(refusal_after(limit, "limit on file sizes"), Refusal::full);
}

TEST_F(LedgerRefusalTest, AfterARefusalForSpaceTheNextSucceeds) {
  const auto limit = [] {
    const rlimit small{65536, 65536};
    return ::setrlimit(RLIMIT_FSIZE, &small) == 0;
  };
  ASSERT_EQ(refusal_after(limit, "limit on file sizes"), Refusal::full);
  EXPECT_TRUE(member("a")->charge(Pages(100)));
}

}  // namespace
}  // namespace kvcached::ledger
