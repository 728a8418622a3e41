// `kvcached stat`: what it shows of pools that are there, and what it says when they cannot be
// read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "policy/clock.hpp"
#include "policy/ledger/ledger.hpp"
#include "tests/cli/command.hpp"

namespace kvcached::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr ledger::GpuUuid kGpu{1, 2, 3};

class Stat : public testing::Test {
 protected:
  // A member of the pool, as an engine's process would be.
  std::unique_ptr<ledger::Ledger> join(const std::string& tenant, ledger::TenantLimits limits) {
    ledger::Refusal refusal{};
    std::string complaint;
    auto member =
        ledger::Ledger::open({pools(), kGpu, Pages(1024)}, steady_clock(), refusal, complaint);
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
    member->publish({Pages(70), Pages(10), Pages(20), Pages(7), Bytes(8ULL << 30), Pages(), Pages(),
                     3, 41, 17});
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

  void expect_refusal(const Outcome& outcome, const std::string& part) const {
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, StartsWith("kvcached: "));
    EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
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

  const auto process = pool.at("processes").at(0);
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
  const auto model = process.at("model");
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
  EXPECT_THAT(outcome.out, testing::ContainsRegex(
                               std::to_string(getpid()) +
                               " +chat +serve --port 80 +200 MiB +140 MiB +20 MiB +40 MiB +14 MiB "
                               "+3 +vllm: on +llama .32 layers, 8 x 128 x 2 B, 128 KiB"));
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
  expect_refusal(stat({"--json"}), pools());
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
  EXPECT_EQ(outcome.status, 2);
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
