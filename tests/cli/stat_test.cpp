// `kvcached stat`: what it shows of pools that are there, and what it says when they cannot be
// read.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "policy/clock.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/ledger.hpp"
#include "tests/cli/command.hpp"

namespace kvcached::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr ledger::GpuUuid kGpu{1, 2, 3};

class Stat : public testing::Test {
 protected:
  // A member of the pool, as an engine's process would be.
  std::unique_ptr<ledger::Ledger> join(const std::string& tenant, ledger::TenantLimits limits) {
    ledger::Refusal refusal{};
    std::string complaint;
    auto member = ledger::Ledger::open({pools(), kGpu, Pages(1024), Pages(2048)}, steady_clock(),
                                       refusal, complaint);
    if (member == nullptr) throw std::runtime_error(complaint);
    if (!member->join({tenant, limits, "serve --port 80"}, complaint)) {
      throw std::runtime_error(complaint);
    }
    return member;
  }

  // The member that most tests look at.
  std::unique_ptr<ledger::Ledger> chat() {
    auto member = join("chat", {Pages(64), Pages(512), 300});
    EXPECT_TRUE(member->charge(Pages(100)));
    ledger::Figures figures;
    figures.used = Pages(70);
    figures.fragmented = Pages(10);
    figures.warm = Pages(20);
    figures.want = Pages(7);
    figures.reserved = Bytes(8ULL << 30);
    figures.short_grants = 3;
    figures.grows = 41;
    figures.releases = 17;
    figures.least = Pages(30);
    figures.plain = Bytes(600 << 20);
    figures.plain_peak = Bytes(700 << 20);
    figures.evicted = 9;
    figures.stripes_kept = {4, 5, 6};
    member->publish(figures);
    member->describe_model({"llama", 32, 8, 128, 2, 8192, 16, 131072});
    member->report_adapter("vllm", "on");
    return member;
  }

  std::string pools() const { return folder_ / "pools"; }

  // The one file that the pool consists of.
  std::string pool_file() const {
    for (const auto& entry : std::filesystem::directory_iterator(pools())) {
      if (entry.is_regular_file() && entry.file_size() > 0) return entry.path().string();
    }
    throw std::runtime_error("no pool file");
  }

  Outcome stat(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"stat", "--dir", pools()});
    return kvcached(more);
  }

  static void expect_refusal(const Outcome& outcome, const std::string& part) {
    expect_line(outcome, 1, part);
  }
  static void expect_bad_use(const Outcome& outcome, const std::string& part) {
    expect_line(outcome, 2, part);
  }
  // Nothing is shown, but as a document.
  static void expect_empty_document(Outcome outcome, int status, const std::string& part) {
    EXPECT_EQ(nlohmann::json::parse(outcome.out).dump(), "{\"pools\":[]}");
    outcome.out.clear();
    expect_line(outcome, status, part);
  }
  // A pool file of the layout before.
  std::string leftover() const {
    const std::string name = ledger::file_name(kGpu);
    return pools() + "/" + name.substr(0, name.rfind('v')) + "v" +
           std::to_string(ledger::layout::kVersion - 1);
  }

  Folder folder_;
};

TEST_F(Stat, JsonTellsEverything) {
  const auto member = chat();
  const Outcome outcome = stat({"--json"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto pool = nlohmann::json::parse(outcome.out).at("pools").at(0);
  constexpr std::uint64_t page = 2 << 20;
  EXPECT_EQ(pool.at("gpu"), ledger::to_string(kGpu));
  EXPECT_EQ(pool.at("pool_bytes"), 1024 * page);
  EXPECT_EQ(pool.at("charged_bytes"), 100 * page);
  EXPECT_EQ(pool.at("limbo_bytes"), 0);
  EXPECT_EQ(pool.at("free_bytes"), 924 * page);

  const auto tenant = pool.at("tenants").at(0);
  EXPECT_EQ(tenant.at("name"), "chat");
  EXPECT_EQ(tenant.at("min_bytes"), 64 * page);
  EXPECT_EQ(tenant.at("max_bytes"), 512 * page);
  EXPECT_EQ(tenant.at("weight"), 300);
  EXPECT_EQ(tenant.at("charged_bytes"), 100 * page);

  EXPECT_EQ(tenant.at("least_bytes"), 30 * page);
  EXPECT_EQ(tenant.at("grants"), 1);
  EXPECT_EQ(tenant.at("granted_bytes"), 100 * page);
  EXPECT_EQ(tenant.at("short_grants"), 3);
  EXPECT_EQ(tenant.at("evicted_blocks"), 9);
  EXPECT_EQ(tenant.at("below_min_ms"), 0);
  EXPECT_EQ(tenant.at("waits"), nlohmann::json::array());
  EXPECT_EQ(tenant.at("waits_in_vain"), 0);
  EXPECT_EQ(tenant.at("reclaimed_bytes"), 0);
  EXPECT_EQ(tenant.at("reclaimed_for"), nlohmann::json::array());
  EXPECT_EQ(tenant.at("warm_stripes").at("hits"), 4);
  EXPECT_EQ(tenant.at("warm_stripes").at("misses"), 5);
  EXPECT_EQ(tenant.at("warm_stripes").at("in_vain"), 6);

  const auto process = pool.at("processes").at(0);
  EXPECT_EQ(process.at("least_bytes"), 30 * page);
  EXPECT_EQ(process.at("plain_bytes"), 300 * page);
  EXPECT_EQ(process.at("plain_peak_bytes"), 350 * page);
  EXPECT_EQ(process.at("pid"), getpid());
  EXPECT_EQ(process.at("alive"), true);
  EXPECT_EQ(process.at("tenant"), "chat");
  EXPECT_EQ(process.at("command"), "serve --port 80");
  EXPECT_EQ(process.at("charged_bytes"), 100 * page);
  EXPECT_EQ(process.at("used_bytes"), 70 * page);
  EXPECT_EQ(process.at("fragmented_bytes"), 10 * page);
  EXPECT_EQ(process.at("warm_bytes"), 20 * page);
  EXPECT_EQ(process.at("want_bytes"), 7 * page);
  EXPECT_EQ(process.at("reserved_bytes"), 8ULL << 30);
  EXPECT_EQ(process.at("short_grants"), 3);
  EXPECT_EQ(process.at("grows"), 41);
  EXPECT_EQ(process.at("releases"), 17);
  EXPECT_EQ(process.at("adapter"), "vllm");
  EXPECT_EQ(process.at("adapter_state"), "on");
  const auto& model = process.at("model");
  EXPECT_EQ(model.at("name"), "llama");
  EXPECT_EQ(model.at("layers"), 32);
  EXPECT_EQ(model.at("kv_heads"), 8);
  EXPECT_EQ(model.at("head_dim"), 128);
  EXPECT_EQ(model.at("bytes_per_element"), 2);
  EXPECT_EQ(model.at("max_seq_len"), 8192);
  EXPECT_EQ(model.at("block_tokens"), 16);
  EXPECT_EQ(model.at("bytes_per_token"), 131072);
}

TEST_F(Stat, TheTableShowsTheSame) {
  const auto member = chat();
  const Outcome outcome = stat();
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("pool 2.0 GiB, charged 200 MiB, limbo 0, free 1.8 GiB"));
  EXPECT_THAT(outcome.out, testing::ContainsRegex("chat +128 MiB +1.0 GiB +300 +200 MiB"));
  EXPECT_THAT(outcome.out,
              testing::ContainsRegex(
                  std::to_string(getpid()) +
                  " +chat +serve --port 80 +200 MiB +140 MiB +20 MiB +40 MiB +14 MiB "
                  "+3 +600 MiB +700 MiB +vllm: on +llama .32 layers, 8 x 128 x 2 B, 128 KiB"));
}

TEST_F(Stat, WhatPlainMemoryTakesOfThePoolIsShown) {
  const auto member = chat();
  EXPECT_THAT(stat().out, Not(HasSubstr("not there")));
  for (int i = 0; i < 2; ++i) member->reap(bytes_of(Pages(700)));  // of 924 that should be free
  // 50 more are kept for the member's high-water mark.
  EXPECT_THAT(stat().out, HasSubstr("free 1.3 GiB, not there 548 MiB"));
  const auto pool = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_EQ(pool.at("shortfall_bytes"), 274ULL << 21);
  EXPECT_EQ(pool.at("free_bytes"), 650ULL << 21);
}

// Every container has a process 1.
TEST_F(Stat, AProcessOfAnotherPidNamespaceIsMarked) {
  const auto member = chat();
  const std::string pid = std::to_string(getpid());
  EXPECT_THAT(stat().out, HasSubstr("\n" + pid + "  chat"));
  ledger::PoolFile file(::open(pool_file().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(file.map(true));
  file.mapped()->slots[0].pid_namespace = 17;
  EXPECT_THAT(stat().out, HasSubstr("\n" + pid + " (elsewhere)  chat"));
  const auto pool = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_EQ(pool.at("processes").at(0).at("pid_namespace"), 17);
}

TEST_F(Stat, ALimitBelowOneRequestIsShown) {
  const auto member = chat();
  member->describe_model({"llama", 32, 8, 128, 2, 16384, 16, 131072});
  EXPECT_THAT(stat().out, HasSubstr("128 KiB/token, requests up to 8192 of 16384 tokens)"));
  const auto pool = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_EQ(pool.at("processes").at(0).at("model").at("covered_tokens"), 8192);
}

TEST_F(Stat, TheWholeGpuIsExplained) {
  const auto member = chat();
  const auto unknown = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_EQ(unknown.at("gpu_bytes"), 4ULL << 30);
  EXPECT_TRUE(unknown.at("gpu_free_bytes").is_null()) << "no member has looked yet";
  EXPECT_TRUE(unknown.at("unexplained_bytes").is_null());
  EXPECT_THAT(stat().out, testing::Not(HasSubstr("unexplained")));
  member->reap(bytes_of(Pages(1600)));
  const auto pool = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_EQ(pool.at("gpu_free_bytes"), bytes_of(Pages(1600)).value);
  EXPECT_EQ(pool.at("plain_bytes"), 600 << 20);
  // 2048 pages - 1600 free - 100 charged - 300 plain
  EXPECT_EQ(pool.at("unexplained_bytes"), bytes_of(Pages(48)).value);
  EXPECT_THAT(stat().out, HasSubstr("GPU 4.0 GiB: pool 200 MiB, plain 600 MiB, unexplained 96 MiB, "
                                    "free 3.1 GiB"));
}

// Nobody hears any more what of the GPU is free.
TEST_F(Stat, TheGpuIsLeftOpenOnceNobodyLives) {
  auto member = chat();
  member->reap(bytes_of(Pages(1600)));
  member.reset();
  EXPECT_THAT(stat().out, testing::Not(HasSubstr("unexplained")));
  const auto pool = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_TRUE(pool.at("gpu_free_bytes").is_null());
  EXPECT_TRUE(pool.at("unexplained_bytes").is_null());
}

TEST_F(Stat, WaitsAndReclaimsOfATenant) {
  const auto a = join("a", {});
  const auto b = join("b", {});
  ASSERT_TRUE(a->charge(Pages(1000)));
  ledger::Figures idle;
  idle.stripe = Pages(1);
  a->publish(idle);
  b->publish(idle);
  EXPECT_FALSE(b->charge(Pages(100), Pages(100)));
  usleep(3000);
  a->uncharge(Pages(200));
  EXPECT_TRUE(b->charge(Pages(100), Pages(100)));
  b->drop_claim();
  const auto tenants = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0).at("tenants");
  const auto waits = tenants.at(1).at("waits");
  ASSERT_EQ(waits.size(), 1U);
  EXPECT_EQ(waits.at(0).at("count"), 1);
  EXPECT_GE(waits.at(0).at("below_us"), 4096);
  EXPECT_GE(tenants.at(0).at("reclaimed_bytes"), bytes_of(Pages(76)).value);
  EXPECT_EQ(tenants.at(0).at("reclaimed_for").at(0).at("tenant"), "b");
  EXPECT_THAT(stat().out, testing::ContainsRegex("RECLAIMED FROM +FOR +SIZE\na +b +[0-9]+ MiB"));
}

TEST_F(Stat, TheLastTenMinutes) {
  const auto member = chat();
  EXPECT_THAT(stat({"--history"}).out, HasSubstr("no history"));
  member->reap(bytes_of(Pages(1600)));
  const Outcome outcome = stat({"--history", "--json"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto pool = nlohmann::json::parse(outcome.out).at("pools").at(0);
  EXPECT_EQ(pool.at("gpu"), ledger::to_string(kGpu));
  const auto moment = pool.at("history").at(0);
  EXPECT_LE(moment.at("seconds_ago"), 5);
  EXPECT_EQ(moment.at("pool_bytes"), bytes_of(Pages(1024)).value);
  EXPECT_EQ(moment.at("charged_bytes"), bytes_of(Pages(100)).value);
  EXPECT_EQ(moment.at("free_bytes"), bytes_of(Pages(924)).value);
  EXPECT_EQ(moment.at("used_bytes"), bytes_of(Pages(70)).value);
  EXPECT_EQ(moment.at("want_bytes"), bytes_of(Pages(7)).value);
  EXPECT_EQ(moment.at("tenants").at(0).at("name"), "chat");
  EXPECT_EQ(moment.at("tenants").at(0).at("charged_bytes"), bytes_of(Pages(100)).value);
  const Outcome curves = stat({"--history"});
  EXPECT_THAT(curves.out, testing::ContainsRegex("pool +charged +▁ +200 MiB +200 MiB"));
  EXPECT_THAT(curves.out, testing::ContainsRegex("pool +free +█ +1.8 GiB +1.8 GiB"));
  EXPECT_THAT(curves.out, testing::ContainsRegex("chat +used +▁ +140 MiB +140 MiB"));
}

TEST_F(Stat, AgainAndAgain) {
  const auto member = chat();
  const auto watched = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"1", build_directory() + "/kvcached", "stat", "--dir", pools()});
    return run_program("/usr/bin/timeout", more).out;
  };
  const auto blocks = [](const std::string& text) {
    std::size_t count = 0;
    for (auto at = text.find("GPU-"); at != std::string::npos; at = text.find("GPU-", at + 1)) {
      ++count;
    }
    return count;
  };
  const std::string often = watched({"--watch", "0.2"});
  EXPECT_GE(blocks(often), 3U) << often;
  EXPECT_LE(blocks(often), 6U);
  EXPECT_EQ(often.find('\033'), std::string::npos) << "this is no terminal";
  EXPECT_THAT(often, HasSubstr("chat"));
  EXPECT_EQ(blocks(watched({"--watch"})), 1U);
  const std::string lines = watched({"--watch", "0.4s", "--json"});
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 3);
  EXPECT_EQ(nlohmann::json::parse(lines.substr(0, lines.find('\n'))).at("pools").size(), 1U);
  const std::string history = watched({"--watch", "0.4s", "--json", "--history"});
  EXPECT_EQ(std::count(history.begin(), history.end(), '\n'), 3);
  expect_bad_use(stat({"--watch", "soon"}), "--watch soon: not a time; write seconds");
  expect_bad_use(stat({"--watch", "0"}), "--watch 0: not a time");
}

TEST_F(Stat, WatchedWithoutAPoolItComplainsOnce) {
  const Outcome outcome = in_shell("timeout 1 $kvcached stat --watch 0.4 --json --dir " + pools());
  EXPECT_EQ(outcome.out, "{\"pools\":[]}\n{\"pools\":[]}\n{\"pools\":[]}\n");
  EXPECT_EQ(outcome.err, "kvcached: no pool in " + pools() + ": no process has joined yet\n");
}

TEST_F(Stat, OneGpuOfSeveral) {
  const auto member = chat();
  EXPECT_THAT(stat({"--gpu", "gpu-0102"}).out, HasSubstr("chat"));
  expect_bad_use(stat({"--gpu", "GPU-99"}), "no pool is of GPU GPU-99");
  expect_bad_use(stat({"--gpu", "GPU-99", "--history"}), "no pool is of GPU GPU-99");
  expect_empty_document(stat({"--gpu", "GPU-99", "--json"}), 2, "GPU-99");
  expect_empty_document(stat({"--gpu", "GPU-99", "--json", "--history"}), 2, "GPU-99");
  expect_bad_use(stat({"--gpu", "\033[2J" + std::string(20'000, 'x')}), "GPU ?[2Jxxx");
  EXPECT_LT(stat({"--gpu", std::string(20'000, 'x')}).err.size(), 200U);
}

TEST_F(Stat, WhatNobodySaidIsLeftOpen) {
  const auto member = join("plain", {});
  const Outcome table = stat();
  EXPECT_THAT(table.out, testing::ContainsRegex("plain +0 +- +1 +0"));
  const auto pool = nlohmann::json::parse(stat({"--json"}).out).at("pools").at(0);
  EXPECT_TRUE(pool.at("tenants").at(0).at("max_bytes").is_null());
  EXPECT_TRUE(pool.at("processes").at(0).at("model").is_null());
}

TEST_F(Stat, NamesCannotReachTheTerminalRaw) {
  const auto member = join("a\033[2Jb\xff", {});
  EXPECT_EQ(stat().out.find('\033'), std::string::npos);
  EXPECT_EQ(stat({"--json"}).status, 0);
}

TEST_F(Stat, TheDirectoryComesFromTheEnvironmentToo) {
  const auto member = chat();
  const Outcome outcome = kvcached({"stat"}, {{"KVCACHED_DIR", pools()}});
  EXPECT_THAT(outcome.out, HasSubstr("chat"));
}

// Not the default one in its place.
TEST_F(Stat, ADirectoryThatCannotBeIsBadUse) {
  const std::string allowed = ": not a directory; write an absolute path";
  for (const std::string verb : {"stat", "set chat weight=5", "trim chat", "limit 1GiB"}) {
    const std::string name = verb.substr(0, verb.find(' ')) + ": KVCACHED_DIR=";
    expect_bad_use(in_shell("KVCACHED_DIR=./staging $kvcached " + verb),
                   name + "./staging" + allowed);
    expect_bad_use(in_shell("KVCACHED_DIR= $kvcached " + verb), name + allowed);
    expect_bad_use(in_shell("$kvcached " + verb + " --dir staging"), name + "staging" + allowed);
    expect_bad_use(in_shell("$kvcached " + verb + " --dir ''"), name + allowed);
  }
}

TEST_F(Stat, OnePoolForEachGpu) {
  const auto member = chat();
  ledger::Refusal refusal{};
  std::string complaint;
  const auto other = ledger::Ledger::open({pools(), ledger::GpuUuid{9}, Pages(10)}, steady_clock(),
                                          refusal, complaint);
  ASSERT_NE(other, nullptr) << complaint;
  EXPECT_EQ(nlohmann::json::parse(stat({"--json"}).out).at("pools").size(), 2U);
}

TEST_F(Stat, NoPool) {
  expect_refusal(stat(), pools());
  std::filesystem::create_directories(pools());
  expect_refusal(stat(), pools());
  expect_refusal(stat({"--history"}), pools());
  expect_empty_document(stat({"--json"}), 1, pools());
  expect_empty_document(stat({"--json", "--history"}), 1, pools());
}

TEST_F(Stat, WhatAnotherVersionLeftIsToldAndNoFailure) {
  std::filesystem::create_directories(pools());
  write_file(leftover(), std::string(ledger::layout::kFileSize, 'x'));
  const std::string line = "kvcached: pool " + leftover() +
                           ": left by another version of kvcached; remove it once no engine uses "
                           "it\n";
  expect_refusal(stat(), line);
  const auto member = chat();
  for (const Outcome& outcome : {stat(), stat({"--history"}), stat({"--json"})}) {
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.err, line);
    EXPECT_THAT(outcome.out, HasSubstr(ledger::to_string(kGpu)));
  }
  const ledger::PoolFile used(::open(leftover().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(used.try_lock(ledger::layout::kPresenceByte, ledger::LockKind::shared));
  const Outcome outcome = stat();
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr(leftover() + ": made by another version of kvcached\n"));
}

TEST_F(Stat, WhatCannotBeWrittenIsSaid) {
  const auto member = chat();
  const std::string stat = "$kvcached stat --dir " + pools();
  for (const std::string& words : {stat, stat + " --json", stat + " --history",
                                   stat + " --watch 0.1", std::string("$kvcached version")}) {
    expect_refusal(in_shell("timeout 10 " + words + " > /dev/full"),
                   "kvcached: standard output: No space left on device\n");
  }
  expect_refusal(in_shell("$kvcached help >&-"), "standard output: Bad file descriptor");
  const Outcome left =
      in_shell("trap '' PIPE; { timeout 10 " + stat + " --watch 0.1; echo $? >&2; } | head -1");
  EXPECT_EQ(left.err, "kvcached: standard output: Broken pipe\n1\n");
}

TEST_F(Stat, AComplaintThatCannotBeWrittenIsNoCrash) {
  EXPECT_EQ(in_shell("$kvcached stat --dir " + pools() + " 2>&-").status, 1);
  EXPECT_EQ(in_shell("$kvcached stat --dir " + pools() + " 2>/dev/full").status, 1);
  EXPECT_EQ(in_shell("$kvcached banana 2>/dev/full").status, 2);
}

TEST_F(Stat, ADamagedFile) {
  chat();
  write_file(pool_file(), "no pool at all");
  expect_refusal(stat(), pool_file());
}

TEST_F(Stat, ATruncatedFile) {
  chat();
  std::filesystem::resize_file(pool_file(), 100);
  expect_refusal(stat(), pool_file());
}

TEST_F(Stat, ADamagedPoolDoesNotHideTheOthers) {
  const auto member = chat();
  ledger::Refusal refusal{};
  std::string complaint;
  const std::string mine = pool_file();
  {
    auto other = ledger::Ledger::open({pools(), ledger::GpuUuid{9}, Pages(10)}, steady_clock(),
                                      refusal, complaint);
  }
  for (const auto& entry : std::filesystem::directory_iterator(pools())) {
    if (entry.is_regular_file() && entry.path() != mine) {
      std::filesystem::resize_file(entry.path(), 100);
    }
  }
  const Outcome outcome = stat();
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.out, HasSubstr("chat"));
  EXPECT_THAT(outcome.err, StartsWith("kvcached: "));
}

TEST_F(Stat, AnotherUsersPool) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  const auto member = chat();
  // The command is copied where another user may run it.
  const std::string copy = folder_ / "kvcached";
  std::filesystem::copy(build_directory() + "/kvcached", copy);
  ASSERT_EQ(chmod(folder_.path().c_str(), 0755), 0);
  const Outcome outcome =
      run_program("/usr/bin/env", {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                   copy, "stat", "--dir", pools()});
  expect_refusal(outcome, pools());
}

}  // namespace
}  // namespace kvcached::test
