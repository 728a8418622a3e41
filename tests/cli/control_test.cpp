// `kvcached set`, `trim` and `limit`: what they say and answer. That members then act on it is
// proved with processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>

#include "policy/clock.hpp"
#include "policy/ledger/ledger.hpp"
#include "tests/cli/command.hpp"

namespace kvcached::test {
namespace {

using testing::HasSubstr;

constexpr ledger::GpuUuid kGpu{1, 2, 3};
constexpr ledger::GpuUuid kOther{0xab, 2, 3};

class ControlVerbs : public testing::Test {
 protected:
  std::unique_ptr<ledger::Ledger> join(const std::string& tenant,
                                       const ledger::GpuUuid& gpu = kGpu) {
    ledger::Refusal refusal{};
    std::string complaint;
    auto member = ledger::Ledger::open({pools(), gpu, Pages(1024), Pages(2048)}, steady_clock(),
                                       refusal, complaint);
    if (member == nullptr) throw std::runtime_error(complaint);
    if (!member->join({tenant, {}, "serve"}, complaint)) throw std::runtime_error(complaint);
    return member;
  }
  std::string pools() const { return folder_ / "pools"; }
  Outcome run(std::vector<std::string> words) const {
    words.insert(words.end(), {"--dir", pools(), "--wait", "0"});
    return kvcached(words);
  }
  // The command, where other users may run it.
  std::string command_for_others() const {
    const std::string copy = folder_ / "kvcached";
    std::filesystem::copy(build_directory() + "/kvcached", copy);
    EXPECT_EQ(chmod(folder_.path().c_str(), 0755), 0);
    return copy;
  }

  Folder folder_;
};

TEST_F(ControlVerbs, SetSaysWhatIsInForce) {
  const auto member = join("chat");
  ASSERT_TRUE(member->charge(Pages(100)));
  const Outcome outcome = run({"set", "chat", "min=64MiB", "max=50%", "weight=7"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "chat: min 64 MiB, max 1.0 GiB, weight 7; charged 200 MiB before, 200 MiB now\n");
  EXPECT_EQ(member->limits().min, Pages(32));
  EXPECT_EQ(member->limits().max, Pages(512));
  EXPECT_EQ(member->limits().weight, 7U);
}

TEST_F(ControlVerbs, SetSaysWhatStays) {
  const auto member = join("chat");
  ASSERT_TRUE(member->charge(Pages(100)));
  ledger::Figures figures;
  figures.used = Pages(60);
  figures.fragmented = Pages(30);
  figures.warm = Pages(10);
  figures.stripe = Pages(1);
  member->publish(figures);
  const Outcome outcome = run({"set", "chat", "max=100MiB"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out,
              HasSubstr("chat: above its maximum; it grows no more, and falls as it frees: in use "
                        "120 MiB, fragmented 60 MiB, 20 MiB not given back yet\n"));
  figures.stripe = Pages();
  figures.want = Pages(3);
  member->publish(figures);
  EXPECT_THAT(run({"trim", "chat"}).out,
              HasSubstr("20 MiB kept for requests that wait; process " + std::to_string(getpid()) +
                        " has memory that is backed as a whole"));
}

TEST_F(ControlVerbs, BadWords) {
  const auto member = join("chat");
  expect_line(run({"set"}), 2, "NAME is required");
  expect_line(run({"set", "chat"}), 2, "set: nothing to change; write min=SIZE");
  expect_line(run({"set", "chat", "min=lots"}), 2, "set: min=lots: not 0 or a size");
  expect_line(run({"set", "chat", "maximum=1GiB"}), 2, "set: maximum=1GiB: not a change");
  expect_line(run({"trim"}), 2, "NAME is required");
  expect_line(run({"trim", "chat", "more"}), 2, "more");
  expect_line(run({"limit"}), 2, "SIZE is required");
  expect_line(run({"set", "chat", "max=1MiB"}), 2,
              "set: max=1MiB: not a size of at least 2MiB; write e.g. max=8GiB or max=40%");
  for (const std::string size : {"0", "40", "1MiB"}) {
    expect_line(run({"limit", size}), 2,
                "limit: " + size + ": not a size of at least 2MiB; write e.g. 8GiB or 40%");
  }
  expect_line(kvcached({"trim", "chat", "--dir", pools(), "--wait", "long"}), 2,
              "--wait long: not a duration; write e.g. 2s, 500ms or 0");
  expect_line(run({"set", "chat", "weight=5", "--gpu", "GPU-7"}), 2,
              "set: --gpu GPU-7: no pool has that name; there is GPU-01020300-");
}

TEST_F(ControlVerbs, Refusals) {
  expect_line(run({"trim", "chat"}), 1, "trim: no pool in");
  const auto member = join("chat");
  expect_line(run({"set", "else", "min=1GiB"}), 1, "set: else: no tenant has that name");
  expect_line(run({"trim", "else"}), 1, "trim: else: no tenant has that name");
  expect_line(run({"set", "chat", "min=3GiB"}), 1, "exceeds the pool of 2048MiB");
  expect_line(run({"limit", "5GiB"}), 1, "write from 2MiB to 4096MiB");
  expect_line(run({"limit", "0.0001%"}), 1, "limit: a pool of less than a page is not possible");
}

TEST_F(ControlVerbs, TrimNamesWhoDidNotAnswer) {
  const auto member = join("chat");
  const std::string line = "; process " + std::to_string(getpid()) + " has not answered\n";
  EXPECT_THAT(run({"trim", "chat"}).out, testing::EndsWith(line));
  // The next order is its second.
  member->trimmed(2);
  EXPECT_THAT(run({"trim", "chat"}).out, Not(HasSubstr("answered")));
}

TEST_F(ControlVerbs, TheGpuIsAskedForOnlyWhereItIsNotClear) {
  const auto a = join("a");
  const auto b = join("b", kOther);
  const auto both = join("both");
  const auto both_too = join("both", kOther);
  EXPECT_EQ(run({"set", "b", "weight=5"}).status, 0);
  EXPECT_EQ(b->limits().weight, 5U);
  expect_line(run({"set", "both", "weight=6"}), 2,
              "set: several pools are meant; name one by --gpu: "
              "GPU-01020300-");
  EXPECT_EQ(run({"set", "both", "weight=6", "--gpu", "GPU-AB"}).status, 0);
  EXPECT_EQ(both->limits().weight, 1U);
  EXPECT_EQ(both_too->limits().weight, 6U);
  expect_line(run({"limit", "1GiB"}), 2, "name one by --gpu");
  const Outcome outcome = run({"limit", "25%", "--gpu", "GPU-01"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("pool 2.0 GiB before, 1.0 GiB now; charged 0 before, 0 now"));
  EXPECT_EQ(a->pool(), Pages(512));
  EXPECT_EQ(b->pool(), Pages(1024));
}

TEST_F(ControlVerbs, OnlyThePoolsOwner) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  const auto member = join("chat");
  // They may look, but not write.
  const std::string copy = command_for_others();
  ASSERT_EQ(chmod(pools().c_str(), 0755), 0);
  for (const auto& entry : std::filesystem::directory_iterator(pools())) {
    ASSERT_EQ(chmod(entry.path().c_str(), 0644), 0);
  }
  const auto as_other = [&](std::vector<std::string> words) {
    words.insert(words.begin(),
                 {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy});
    words.insert(words.end(), {"--dir", pools()});
    return run_program("/usr/bin/env", words);
  };
  EXPECT_EQ(as_other({"stat"}).status, 0);
  expect_line(as_other({"set", "chat", "weight=5"}), 1, "belongs to another user");
  expect_line(as_other({"trim", "chat"}), 1, "belongs to another user");
  expect_line(as_other({"limit", "1GiB"}), 1, "belongs to another user");
  EXPECT_EQ(member->limits().weight, 1U);
}

// Each of them could show what is not so, and have changes written where they do harm.
TEST_F(ControlVerbs, NothingPlantedByAnotherUserIsShownOrWritten) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  const auto member = join("chat");
  const std::string copy = command_for_others();
  constexpr uid_t kPlanter = 54'001;
  const std::vector<std::vector<std::string>> verbs{{"stat"},
                                                    {"stat", "--history"},
                                                    {"set", "chat", "weight=5"},
                                                    {"trim", "chat"},
                                                    {"limit", "1GiB"}};

  // A file in a directory that all may write.
  for (const auto& entry : std::filesystem::directory_iterator(pools())) {
    ASSERT_EQ(chmod(entry.path().c_str(), 0644), 0);
    ASSERT_EQ(chown(entry.path().c_str(), kPlanter, kPlanter), 0);
  }
  ASSERT_EQ(chmod(pools().c_str(), 01777), 0);
  for (std::vector<std::string> words : verbs) {
    words.insert(words.end(), {"--dir", pools()});
    const Outcome outcome = kvcached(words);
    EXPECT_NE(outcome.status, 0) << words[0];
    EXPECT_EQ(outcome.out, "") << words[0];
    EXPECT_THAT(outcome.err, HasSubstr("belongs to user 54001; set KVCACHED_DIR")) << words[0];
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
  EXPECT_EQ(member->limits().weight, 1U);

  // A directory whose name can be guessed.
  const std::string guessed = "/dev/shm/kvcached-54003";
  std::filesystem::copy(pools(), guessed);
  ASSERT_EQ(chown(guessed.c_str(), kPlanter, kPlanter), 0);
  ASSERT_EQ(chmod(guessed.c_str(), 0755), 0);
  for (std::vector<std::string> words : verbs) {
    words.insert(words.begin(),
                 {"setpriv", "--reuid=54003", "--regid=54003", "--clear-groups", copy});
    const Outcome outcome = run_program("/usr/bin/env", words, {{"KVCACHED_DIR", ""}});
    EXPECT_NE(outcome.status, 0) << words[5];
    EXPECT_EQ(outcome.out, "") << words[5];
    EXPECT_THAT(outcome.err, HasSubstr("pool " + guessed + ": belongs to user 54001; set"));
  }
  std::filesystem::remove_all(guessed);
}

TEST_F(ControlVerbs, HelpNamesThem) {
  const std::string text = kvcached({"help"}).out;
  for (const char* verb : {"kvcached set NAME", "kvcached trim NAME", "kvcached limit SIZE"}) {
    EXPECT_THAT(text, HasSubstr(verb));
  }
}

}  // namespace
}  // namespace kvcached::test
