// What members tell of themselves, and what tools read without joining.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "policy/ledger/books.hpp"
#include "policy/ledger/test_points.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class SnapshotTest : public PoolFolder {
 protected:
  std::vector<Snapshot> pools() {
    complaints_.clear();
    return read_pools(path_, complaints_);
  }
  std::vector<std::string> complaints_;
};

Figures figures_of(std::uint64_t n) {
  Figures figures;
  figures.used = Pages(n);
  figures.warm = Pages(n + 1);
  figures.want = Pages(n + 2);
  figures.reserved = Bytes(n + 3);
  figures.short_grants = n + 4;
  figures.grows = n + 5;
  figures.releases = n + 6;
  figures.fragmented = Pages(n + 7);
  return figures;
}

TEST_F(SnapshotTest, TellsAllThatMembersTold) {
  const auto a = member("a", 10, 50);
  ASSERT_TRUE(a->charge(Pages(20)));
  a->publish(figures_of(1000));
  a->describe_model({"llama", 32, 8, 128, 2, 8192, 16, 131072});
  a->report_adapter("vllm", "active");
  for (const Snapshot& books : {a->snapshot(), pools().at(0)}) {
    EXPECT_EQ(books.gpu, gpu_);
    EXPECT_EQ(books.pool, Pages(100));
    EXPECT_EQ(books.charged, Pages(20));
    EXPECT_EQ(books.limbo, Pages(0));
    EXPECT_EQ(books.free, Pages(80));
    ASSERT_EQ(books.tenants.size(), 1U);
    EXPECT_EQ(books.tenants[0].limits.min, Pages(10));
    EXPECT_EQ(books.tenants[0].limits.max, Pages(50));
    EXPECT_EQ(books.tenants[0].limits.weight, 100U);
    ASSERT_EQ(books.members.size(), 1U);
    const MemberState& one = books.members[0];
    EXPECT_EQ(one.slot, 0U);
    EXPECT_EQ(one.generation, 1U);
    EXPECT_EQ(one.pid, ::getpid());
    EXPECT_TRUE(one.alive);
    EXPECT_EQ(one.tenant, "a");
    EXPECT_EQ(one.command, "test");
    EXPECT_EQ(one.adapter, "vllm");
    EXPECT_EQ(one.adapter_state, "active");
    EXPECT_EQ(one.charged, Pages(20));
    EXPECT_EQ(one.figures.used, Pages(1000));
    EXPECT_EQ(one.figures.warm, Pages(1001));
    EXPECT_EQ(one.figures.want, Pages(1002));
    EXPECT_EQ(one.figures.reserved, Bytes(1003));
    EXPECT_EQ(one.figures.short_grants, 1004U);
    EXPECT_EQ(one.figures.grows, 1005U);
    EXPECT_EQ(one.figures.releases, 1006U);
    EXPECT_EQ(one.model.name, "llama");
    EXPECT_EQ(one.model.layers, 32U);
    EXPECT_EQ(one.model.kv_heads, 8U);
    EXPECT_EQ(one.model.head_dim, 128U);
    EXPECT_EQ(one.model.bytes_per_element, 2U);
    EXPECT_EQ(one.model.max_seq_len, 8192U);
    EXPECT_EQ(one.model.block_tokens, 16U);
    EXPECT_EQ(one.model.bytes_per_token, 131072U);
  }
  EXPECT_THAT(complaints_, IsEmpty());
}

TEST_F(SnapshotTest, SlotIsCleanForItsNextMember) {
  auto a = member("a");
  a->publish(figures_of(1000));
  a->describe_model({"llama", 32, 8, 128, 2, 8192, 16, 131072});
  a->report_adapter("vllm", "active");
  a.reset();
  const auto b = member("b");
  const MemberState one = b->snapshot().members.at(0);
  EXPECT_EQ(one.slot, 0U);
  EXPECT_EQ(one.generation, 2U);
  EXPECT_EQ(one.adapter, "");
  EXPECT_EQ(one.adapter_state, "");
  EXPECT_EQ(one.model.name, "");
  EXPECT_EQ(one.model.layers, 0U);
  EXPECT_EQ(one.figures.want, Pages(0));
}

TEST_F(SnapshotTest, TextsAreCutAndMadePrintable) {
  const auto a = member("a");
  a->describe_model({"", 1, 1, 1, 1, 1, 1, 1});
  a->report_adapter(std::string(100, 'n'), "line\nbreak \x1b[31m \xc3\xa4");
  const MemberState one = a->snapshot().members.at(0);
  EXPECT_EQ(one.adapter, std::string(31, 'n'));
  EXPECT_EQ(one.adapter_state, "line?break ?[31m ??");
  EXPECT_EQ(one.model.name, "unnamed");
}

void expect_whole(const Figures& seen) {
  const std::uint64_t n = seen.used.value;
  EXPECT_EQ(seen.warm.value, n + 1);
  EXPECT_EQ(seen.want.value, n + 2);
  EXPECT_EQ(seen.reserved.value, n + 3);
  EXPECT_EQ(seen.short_grants, n + 4);
  EXPECT_EQ(seen.grows, n + 5);
  EXPECT_EQ(seen.releases, n + 6);
  EXPECT_EQ(seen.fragmented.value, n + 7);
}

Ledger* writer = nullptr;
std::atomic<bool> half_written = false;
std::atomic<bool> read_once = false;
std::atomic<bool> written = false;

TEST_F(SnapshotTest, ChangeDuringReadingIsReadAgain) {
  const auto a = member("a");
  const auto b = open();
  writer = a.get();
  a->publish(figures_of(10));
  test_point_hook = [](const char* name) {
    if (std::string_view(name) != "read.half") return;
    test_point_hook = nullptr;
    writer->publish(figures_of(20));
  };
  const Figures seen = b->snapshot().members.at(0).figures;
  EXPECT_EQ(test_point_hook, nullptr);
  expect_whole(seen);
  EXPECT_EQ(seen.used, Pages(20));
}

TEST_F(SnapshotTest, ReadingDuringAChangeIsDoneAgain) {
  const auto a = member("a");
  const auto b = open();
  a->publish(figures_of(10));
  half_written = read_once = written = false;
  test_point_hook = [](const char* name) {
    if (std::string_view(name) == "publish.half") {
      half_written = true;
      while (!read_once) ::usleep(100);
    } else if (std::string_view(name) == "read.again") {
      read_once = true;
      while (!written) ::usleep(100);
    }
  };
  std::thread thread([&] {
    a->publish(figures_of(20));
    written = true;
  });
  while (!half_written) ::usleep(100);
  const Figures seen = b->snapshot().members.at(0).figures;
  EXPECT_TRUE(read_once);
  read_once = true;  // lets the writer go in any case
  thread.join();
  test_point_hook = nullptr;
  expect_whole(seen);
  EXPECT_EQ(seen.used, Pages(20));
}

TEST_F(SnapshotTest, ReaderGivesUpOnAMemberThatStaysHalfWritten) {
  const auto a = member("a");
  const auto b = open();
  PoolFile raw(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(raw.map(true));
  raw.mapped()->slots[0].sequence = 7;
  EXPECT_EQ(b->snapshot().members.at(0).command, "test");
}

TEST_F(SnapshotTest, DeadMembersAreShownUntilTheirPagesAreBack) {
  auto a = member("a");
  const auto b = member("b");
  ASSERT_TRUE(a->charge(Pages(10)));
  a->abandon();  // as a death: the locks go, the slot stays as it was
  for (int i = 0; i < 2; ++i) {
    const Snapshot books = b->snapshot();
    EXPECT_EQ(books.charged, Pages(0));
    EXPECT_EQ(books.limbo, Pages(10));
    EXPECT_EQ(books.free, Pages(90));
    ASSERT_EQ(books.tenants.size(), 1U);
    EXPECT_EQ(books.tenants[0].name, "b");
    ASSERT_EQ(books.members.size(), 2U);
    EXPECT_FALSE(books.members[0].alive);
    EXPECT_EQ(books.members[0].charged, Pages(10));
    EXPECT_TRUE(books.members[1].alive);
    b->reap(Bytes(0));
  }
  b->reap(free_pages(100));
  EXPECT_EQ(b->snapshot().members.size(), 1U);
}

TEST_F(SnapshotTest, WantedSinceIsTheFirstMomentOfWanting) {
  const auto a = member("a");
  PoolFile peek(::open(file().c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(peek.map(false));
  const auto since = [&] { return peek.mapped()->slots[0].want_since.load(); };
  const std::int64_t begin = clock_.now().time_since_epoch().count();
  EXPECT_EQ(since(), 0);
  a->publish(figures_of(1));
  EXPECT_EQ(since(), begin);
  clock_.advance(std::chrono::seconds(1));
  a->publish(figures_of(2));
  EXPECT_EQ(since(), begin);
  a->publish({});
  EXPECT_EQ(since(), 0);
}

TEST_F(SnapshotTest, NoPoolYet) {
  EXPECT_THAT(pools(), IsEmpty());
  EXPECT_THAT(complaints_, ElementsAre("no pool in " + path_ + ": no process has joined yet"));
  complaints_.clear();
  const std::string missing = path_ + "/missing";
  EXPECT_THAT(read_pools(missing, complaints_), IsEmpty());
  EXPECT_THAT(complaints_, ElementsAre("no pool in " + missing + ": no process has joined yet"));
}

TEST_F(SnapshotTest, PoolThatAllHaveLeftIsStillShown) {
  member("a").reset();
  const std::vector<Snapshot> found = pools();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0].members, IsEmpty());
  EXPECT_EQ(found[0].free, Pages(100));
}

TEST_F(SnapshotTest, PoolsAreReadPastOnesThatCannotBe) {
  const auto a = member("a");
  const std::string stem = path_ + "/GPU-00000000-0000-0000-0000-00000000000";
  std::ofstream(stem + "0-v4") << "short";
  std::ofstream(stem + "1-v4") << std::string(layout::kFileSize, 'x');
  std::ofstream(stem + "2-v7") << std::string(layout::kFileSize, 'x');
  std::ofstream(stem + "3-v4") << std::string(1000, 'x');
  std::ofstream(path_ + "/notes.txt") << "not a pool";
  ASSERT_EQ(::symlink(file().c_str(), (stem + "4-v4").c_str()), 0);
  ASSERT_EQ(::mkfifo((stem + "5-v4").c_str(), 0600), 0);
  EXPECT_EQ(pools().size(), 1U);
  EXPECT_THAT(
      complaints_,
      ElementsAre(HasSubstr("0-v4: damaged: too short"), HasSubstr("1-v4: not a pool"),
                  HasSubstr("2-v7: left by another version of kvcached; remove it once"),
                  HasSubstr("3-v4: damaged: wrong size"), HasSubstr("4-v4: not a regular file"),
                  HasSubstr("5-v4: not a regular file")));
}

TEST_F(SnapshotTest, ReadingChangesNothing) {
  const auto a = member("a");
  ASSERT_TRUE(a->charge(Pages(10)));
  a->abandon();
  const auto content = [&] {
    std::ifstream stream(file(), std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(stream), {}};
  };
  const std::string before = content();
  EXPECT_EQ(pools().at(0).limbo, Pages(10));
  EXPECT_EQ(content(), before);
}

// In the file there is a word for "not told", which is not to be mistaken for a length.
TEST_F(SnapshotTest, LengthsThatFitAreToldToTheLast) {
  const auto a = member("a");
  Figures figures;
  const auto told = [&] {
    a->publish(figures);
    return a->snapshot().members.at(0).figures.fitting;
  };
  EXPECT_EQ(told(), std::nullopt);
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  for (const std::uint32_t tokens : {0U, 16U, kMost - 1}) {
    figures.fitting = tokens;
    EXPECT_EQ(told(), tokens);
  }
  figures.fitting = kMost;
  EXPECT_EQ(told(), kMost - 1);
}

}  // namespace
}  // namespace kvcached::ledger
