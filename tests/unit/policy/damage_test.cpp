// Files that cannot be used, one by one, and files that go bad while they are in use.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "policy/ledger/books.hpp"
#include "policy/ledger/test_points.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

using layout::Header;
using testing::HasSubstr;

class DamageTest : public PoolFolder {
 protected:
  // Changes the file as a stray process would.
  void change(const std::function<void(layout::File&)>& how) {
    PoolFile raw(::open(file().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(raw.map(true));
    how(*raw.mapped());
  }
  std::string content() const {
    std::ifstream stream(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
};

TEST_F(DamageTest, FileAndDirectoryArePrivate) {
  path_ += "/new";
  const auto a = open();
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700U);
  ASSERT_EQ(::stat(file().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
  EXPECT_EQ(static_cast<std::size_t>(status.st_size), layout::kFileSize);
  EXPECT_GE(static_cast<std::size_t>(status.st_blocks) * 512, layout::kFileSize);
}

TEST_F(DamageTest, StrictUmaskDoesNotLockUsOut) {
  path_ += "/new";
  const mode_t before = ::umask(0777);
  const auto a = open();
  EXPECT_EQ(::umask(before), 0777U) << "the mask is the engine's";
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700U);
  ASSERT_EQ(::stat(file().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
}

TEST_F(DamageTest, FileIsNamedAfterGpuAndVersion) {
  const auto a = open();
  EXPECT_EQ(file_name(gpu_), "GPU-00112233-4455-6677-8899-aabbccddeeff-v4");
  EXPECT_TRUE(std::filesystem::exists(file()));
}

TEST_F(DamageTest, DirectoryThatCannotBeMade) {
  path_ += "/missing/deeper";
  EXPECT_EQ(refused(), Refusal::unreachable);
  EXPECT_THAT(complaint_, HasSubstr("No such file or directory"));
  EXPECT_THAT(complaint_, HasSubstr("KVCACHED_DIR"));
}

TEST_F(DamageTest, DirectoryThatIsAFile) {
  path_ += "/file";
  std::ofstream(path_) << "x";
  EXPECT_EQ(refused(), Refusal::unreachable);
  EXPECT_THAT(complaint_, HasSubstr("Not a directory"));
}

TEST_F(DamageTest, DirectoryOnAReadOnlyFileSystem) {
  path_ = "/proc/kvcached-test";
  EXPECT_EQ(refused(), Refusal::unreachable);
}

TEST_F(DamageTest, TruncatedFile) {
  for (const auto size : {layout::kFileSize - 1, std::size_t{4096}, sizeof(Header), std::size_t{1},
                          layout::kFileSize + 1}) {
    open().reset();
    ASSERT_EQ(::truncate(file().c_str(), static_cast<off_t>(size)), 0);
    EXPECT_EQ(refused(), Refusal::damaged) << size;
    EXPECT_THAT(complaint_, HasSubstr("has " + std::to_string(size) + " bytes"));
    std::filesystem::remove(file());
  }
}

TEST_F(DamageTest, EmptyFileIsANewPool) {
  std::ofstream(file()).close();
  EXPECT_TRUE(member("a")->charge(Pages(100)));
}

TEST_F(DamageTest, EmptiedFileOfLivingMembersIsDamaged) {
  const auto a = open();
  ASSERT_EQ(::truncate(file().c_str(), 0), 0);
  EXPECT_EQ(refused(), Refusal::damaged);
  EXPECT_EQ(std::filesystem::file_size(file()), 0U) << "its members would write into a new pool";
}

TEST_F(DamageTest, NotAPool) {
  std::ofstream(file()) << std::string(layout::kFileSize, 'x');
  const std::string before = content();
  EXPECT_EQ(refused(), Refusal::damaged);
  EXPECT_THAT(complaint_, HasSubstr("not a pool"));
  EXPECT_EQ(content(), before);
}

TEST_F(DamageTest, NotARegularFile) {
  ASSERT_EQ(::symlink("/dev/null", file().c_str()), 0);
  EXPECT_EQ(refused(), Refusal::damaged);
  std::filesystem::remove(file());
  ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
  EXPECT_EQ(refused(), Refusal::damaged);
  std::filesystem::remove(file());
  ASSERT_EQ(::mkdir(file().c_str(), 0700), 0);
  EXPECT_EQ(refused(), Refusal::damaged);
}

TEST_F(DamageTest, OtherVersion) {
  open().reset();
  change([](layout::File& pool) { pool.header.version = 5; });
  const std::string before = content();
  EXPECT_EQ(refused(), Refusal::version);
  EXPECT_THAT(complaint_, HasSubstr("layout version 5, this kvcached has 4"));
  EXPECT_EQ(content(), before);
}

// Both would hand out the same memory.
TEST_F(DamageTest, APoolOfAnotherVersionInUse) {
  std::string other = file();
  other.back() = '2';
  std::ofstream(other).close();
  EXPECT_NE(open(), nullptr) << "nobody is in it";
  const PoolFile present(::open(other.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(present.try_lock(layout::kPresenceByte, LockKind::shared));
  EXPECT_EQ(refused(), Refusal::version);
  EXPECT_THAT(complaint_,
              HasSubstr("a pool of layout version 2 is in use in it, this kvcached has 4"));
  present.unlock(layout::kPresenceByte);
  EXPECT_NE(open(), nullptr);
}

// Neither may go on where two versions look for each other and then both begin.
TEST_F(DamageTest, APoolOfAnotherVersionThatBeginsMeanwhile) {
  static PoolFile other;
  open().reset();
  static std::string name;
  name = file();
  name.back() = '2';
  test_point_hook = [](const char* point) {
    if (std::string_view(point) != "open.opened") return;
    other = PoolFile(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_TRUE(other.try_lock(layout::kPresenceByte, LockKind::shared));
  };
  EXPECT_EQ(refused(), Refusal::version);
  test_point_hook = nullptr;
  other = PoolFile();
  const PoolFile ours(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_FALSE(ours.locked_elsewhere(layout::kPresenceByte)) << "it is let go of";
  EXPECT_NE(open(), nullptr);
}

// A host that closes all descriptors, and opens some of its own.
TEST_F(DamageTest, ADescriptorThatIsAnotherFilesByNow) {
  auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(10)));
  EXPECT_FALSE(a->removed());
  int taken = -1;
  for (int fd = 3; fd < 1024 && taken < 0; ++fd) {
    std::error_code none;
    if (std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), none) == file())
      taken = fd;
  }
  ASSERT_GE(taken, 0);
  {
    const PoolFile hosts(::open((root_ + "/big").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(hosts.descriptor(), 10 << 20), 0);
    ASSERT_EQ(::dup2(hosts.descriptor(), taken), taken);
  }
  EXPECT_FALSE(a->charge(Pages(1))) << "without the pool's lock";
  EXPECT_FALSE(a->removed());
  a.reset();
  EXPECT_NE(::fcntl(taken, F_GETFD), -1) << "it is the host's";
  ::close(taken);
}

TEST_F(DamageTest, AFileWithoutItsName) {
  const auto a = member("a");
  EXPECT_FALSE(a->removed());
  std::filesystem::remove(file());
  EXPECT_TRUE(a->removed());
  EXPECT_TRUE(a->charge(Pages(1))) << "its members go on";
}

TEST_F(DamageTest, DamagedHeaderFields) {
  const std::vector<std::function<void(Header&)>> damages{
      [](Header& h) { h.magic = 1; },          [](Header& h) { h.header_size = 0; },
      [](Header& h) { h.slot_size = 256; },    [](Header& h) { h.slot_count = 255; },
      [](Header& h) { h.tenant_size = 1; },    [](Header& h) { h.tenant_count = 300; },
      [](Header& h) { h.pool_pages = ~0ULL; }, [](Header& h) { h.slots_used = 257; },
      [](Header& h) { h.ready = 2; },          [](Header& h) { h.gpu[1] = 0; }};
  for (std::size_t i = 0; i < damages.size(); ++i) {
    open().reset();
    change([&](layout::File& pool) { damages[i](pool.header); });
    EXPECT_EQ(refused(), Refusal::damaged) << "damage " << i;
    std::filesystem::remove(file());
  }
}

TEST_F(DamageTest, UnfinishedCreationIsDoneAgain) {
  auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(10)));
  a.reset();
  change([](layout::File& pool) { pool.header.ready = 0; });
  EXPECT_EQ(open()->snapshot().free, Pages(100));
}

TEST_F(DamageTest, UnfinishedFileWithMembersIsDamaged) {
  const auto a = open();
  change([](layout::File& pool) { pool.header.ready = 0; });
  EXPECT_EQ(refused(), Refusal::damaged);
}

TEST_F(DamageTest, AfterARebootThePoolIsNew) {
  auto a = member("a", 0, 100, 100);
  ASSERT_TRUE(a->charge(Pages(30)));
  a.reset();
  change([](layout::File& pool) { pool.header.boot_id[0] ^= 1; });
  const auto b = open(70);
  EXPECT_EQ(b->pool(), Pages(70));
  EXPECT_EQ(b->snapshot().free, Pages(70));
}

TEST_F(DamageTest, OtherBootWithMembersIsAnotherMachine) {
  const auto a = member("a");
  change([](layout::File& pool) { pool.header.boot_id[0] ^= 1; });
  EXPECT_EQ(refused(), Refusal::foreign);
  EXPECT_THAT(complaint_, HasSubstr("another machine"));
}

TEST_F(DamageTest, FileThatShrinksInUseEndsTheMembershipNotTheProcess) {
  const auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(10)));
  EXPECT_EQ(a->reach(), Pages(100));
  ASSERT_EQ(::truncate(file().c_str(), 4096), 0);
  EXPECT_EQ(a->reach(), std::nullopt) << "not nothing";
  EXPECT_FALSE(a->charge(Pages(1)));
  a->uncharge(Pages(1));
  a->publish({});
  a->describe_model({"m", 1, 1, 1, 1, 1, 1, 1});
  a->report_adapter("x", "y");
  EXPECT_EQ(a->reap(Bytes(0)), Pages(0));
  EXPECT_TRUE(a->snapshot().members.empty());
  EXPECT_EQ(a->charged(), Pages(9));
}

TEST_F(DamageTest, MemberRepairsItsOwnSlot) {
  const auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(10)));
  change([](layout::File& pool) {
    set_account(pool, 0, {layout::SlotState::free, 77, Pages(1)});
    pool.header.slots_used = 0;
  });
  ASSERT_TRUE(b->charge(Pages(0)));
  ASSERT_TRUE(a->charge(Pages(5)));
  const Snapshot books = b->snapshot();
  EXPECT_EQ(books.members.size(), 2U);
  EXPECT_EQ(books.charged, Pages(15));
  EXPECT_EQ(books.members.at(0).tenant, "a");
}

TEST_F(DamageTest, ValuesOutOfRangeGrantNothingAndCrashNothing) {
  const auto a = member("a");
  const auto b = member("b");
  change([](layout::File& pool) {
    pool.header.slots_used = 9999;
    constexpr std::uint64_t kRest = (1ULL << layout::kStateShift) - 1;  // charge and tenant
    const auto damaged = [](std::uint64_t state) { return state << layout::kStateShift | kRest; };
    pool.accounts[1] = damaged(1);
    pool.accounts[5] = damaged(7);
    pool.accounts[6] = damaged(2);
    pool.slots[6].limbo_since = std::numeric_limits<std::int64_t>::max();
    pool.tenants[0].min_pages = ~0ULL;
    pool.tenants[0].max_pages = ~0ULL;
    pool.header.unexplained_base = ~0ULL;
    for (auto& word : pool.slots[1].command.words) word = ~0ULL;
  });
  EXPECT_FALSE(a->charge(Pages(1)));
  EXPECT_EQ(a->reap(free_pages(1)), Pages(100));
  const Snapshot books = a->snapshot();
  EXPECT_EQ(books.charged, Pages(100)) << "no amount is more than the pool ever had";
  EXPECT_EQ(books.limbo, Pages(100));
  EXPECT_EQ(books.free, Pages(0));
  EXPECT_EQ(books.members.at(1).command, std::string(64, '?'));
  clock_.advance(std::chrono::seconds(5));
  EXPECT_EQ(a->reap(free_pages(1)), Pages(0));
}

TEST_F(DamageTest, OddSequenceOfADeadMemberIsRepaired) {
  auto a = member("a");
  const auto b = member("b");
  a->abandon();
  change([](layout::File& pool) { pool.slots[0].sequence = 7; });
  EXPECT_EQ(b->snapshot().members.size(), 2U);
  b->reap(Bytes(0));
  change([](layout::File& pool) { EXPECT_EQ(pool.slots[0].sequence, 8U); });
}

std::string removed_by_point;

TEST_F(DamageTest, FileRemovedWhileItIsBeingOpenedIsMadeAgain) {
  open().reset();
  removed_by_point = file();
  test_point_hook = [](const char* name) {
    if (std::string_view(name) != "open.opened") return;
    test_point_hook = nullptr;
    std::filesystem::remove(removed_by_point);
  };
  const auto a = open();
  EXPECT_EQ(test_point_hook, nullptr);
  EXPECT_TRUE(std::filesystem::exists(file()));
  EXPECT_EQ(open(7)->pool(), Pages(100)) << "both must be in the same pool";
}

std::string locked_by_point;
int lock_of_point = -1;

// Another newcomer looks at that moment whether the file's maker lives.
TEST_F(DamageTest, FileLockedByAnotherBeforeItsMakerIsMadeAgain) {
  locked_by_point = path_;
  test_point_hook = [](const char* name) {
    if (std::string_view(name) != "create.named") return;
    test_point_hook = nullptr;
    for (const auto& entry : std::filesystem::directory_iterator(locked_by_point))
      lock_of_point = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_TRUE(PoolFile(::dup(lock_of_point)).try_lock(LockKind::exclusive));
  };
  EXPECT_NE(open(), nullptr) << complaint_;
  EXPECT_EQ(test_point_hook, nullptr);
  EXPECT_NE(lock_of_point, -1);
  ::close(lock_of_point);
}

TEST_F(DamageTest, RemovedFileLeavesItsMembersAndStartsANewPool) {
  const auto a = member("a");
  std::filesystem::remove(file());
  EXPECT_TRUE(a->charge(Pages(100)));
  EXPECT_TRUE(member("b")->charge(Pages(100)));
}

}  // namespace
}  // namespace kvcached::ledger
