// Engines that share one GPU behind the library: deaths, shortage, and bad settings.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <thread>

#include "tests/process/engine_process.hpp"

namespace kvcached::test {
namespace {

using Environment = EngineProcess::Environment;

void expect_verified(EngineProcess& engine) {
  EXPECT_EQ(engine.wait(), 0) << engine.errors();
  EXPECT_EQ(engine.figure("summary", "rows_wrong"), 0);
  EXPECT_EQ(engine.figure("summary", "finished"), 60);
  EXPECT_GT(engine.figure("summary", "tokens_verified"), 60 * 100);
}

// What the books say of the living is all that is charged, and nothing is in limbo.
bool exact(const ledger::Snapshot& pool) {
  Pages living;
  for (const auto& m : pool.members)
    if (m.alive) living += m.charged;
  return pool.limbo == Pages{} && pool.charged == living;
}

std::string books(const std::string& folder) {
  const auto pool = pool_in(folder);
  if (!pool) return "no pool";
  std::string text = "charged " + std::to_string(pool->charged.value) + ", limbo " +
                     std::to_string(pool->limbo.value);
  for (const auto& m : pool->members)
    text += "; " + m.tenant + (m.alive ? " " : " (dead) ") + std::to_string(m.charged.value);
  return text;
}

// Whether somebody holds a lock that others wait for: the account's, or the simulated GPU's, whose
// bytes lie before those that tell who lives (tests/sim/physical.cpp).
bool is_locked(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const int file = ::open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_GE(file, 0) << entry.path();
    if (file < 0) continue;
    struct flock range {};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    range.l_start = off_t{1} << 60U;
    range.l_len = 16;
    const bool locked = ::flock(file, LOCK_EX | LOCK_NB) != 0 ||
                        (::fcntl(file, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK);
    ::close(file);
    if (locked) return true;
  }
  return false;
}

class Engines : public ::testing::Test {
 protected:
  Environment environment() const {
    return {{"SIM_GPU_DIR", gpu_.path()},
            {"SIM_GPU_MEMORY", "1GiB"},
            {"KVCACHED_DIR", pool_.path()},
            {"KVCACHED_POOL", "800MiB"}};
  }
  Environment environment(const std::string& key, const std::string& value) const {
    Environment e = environment();
    e[key] = value;
    return e;
  }
  std::unique_ptr<EngineProcess> start(const std::string& name, const Environment& e,
                                       const std::vector<std::string>& flags = {}) const {
    return std::make_unique<EngineProcess>(name, flags, e);
  }
  // Stopped while it holds a lock, it would hold up whoever needs memory for as long as it likes.
  void stop_without_locks(const EngineProcess& engine) const {
    for (int attempt = 0; attempt < 10'000; ++attempt) {
      engine.kill(SIGSTOP);
      siginfo_t info{};
      ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(engine.pid()), &info, WSTOPPED), 0);
      if (!is_locked(gpu_.path()) && !is_locked(pool_.path())) return;
      engine.kill(SIGCONT);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    FAIL() << "it always holds a lock";
  }
  Folder gpu_, pool_;
};

TEST_F(Engines, OneIsElasticAndVerified) {
  auto engine = start("one", environment());
  expect_verified(*engine);
  EXPECT_NE(engine->output().find("\"mode\":\"elastic\""), std::string::npos) << engine->output();
  EXPECT_EQ(engine->errors(), "");
}

TEST_F(Engines, SwitchedOffItRunsStatic) {
  auto engine = start("off", environment("KVCACHED_DISABLE", "1"));
  expect_verified(*engine);
  EXPECT_NE(engine->output().find("\"mode\":\"static\""), std::string::npos);
  EXPECT_FALSE(pool_in(pool_.path())) << "a library that is off made a pool";
}

TEST_F(Engines, WithoutTheLibraryItLinksAndRuns) {
  auto engine = start("alone", environment("LD_PRELOAD", ""));
  expect_verified(*engine);
  EXPECT_NE(engine->output().find("\"mode\":\"static\""), std::string::npos);
}

void survive_kills(const Environment& e, int rounds, unsigned seed) {
  std::mt19937 random(seed);
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE("round " + std::to_string(round) + ", seed " + std::to_string(seed));
    std::vector<std::unique_ptr<EngineProcess>> engines;
    for (const char* name : {"first", "second", "third"})
      engines.push_back(
          std::make_unique<EngineProcess>(name, std::vector<std::string>{"--step-ms", "3"}, e));
    EngineProcess& victim = *engines[random() % engines.size()];
    const std::int64_t at = static_cast<std::int64_t>(random() % 150);
    ASSERT_TRUE(eventually([&] { return victim.figure("step", "step") >= at; })) << victim.errors();
    victim.kill(SIGKILL);
    EXPECT_EQ(victim.wait(), -SIGKILL) << "it had ended before; the moment was not random enough";
    for (const auto& engine : engines)
      if (engine.get() != &victim) expect_verified(*engine);
    // The survivors may have ended before the driver freed the memory: whoever is there then sees
    // to it.
    EngineProcess newcomer("newcomer", {"--step-ms", "30"}, e);
    EXPECT_TRUE(eventually([&] {
      const auto pool = pool_in(e.at("KVCACHED_DIR"));
      return pool && exact(*pool);
    })) << "the books do not return to what the living hold: "
        << books(e.at("KVCACHED_DIR"));
    expect_verified(newcomer);
  }
}

TEST_F(Engines, AKilledOneLeavesTheOthersVerified) {
  survive_kills(environment(), 1, std::random_device{}());
}
TEST_F(Engines, SoakTenKilledAtRandomMoments) {
  survive_kills(environment(), 10, std::random_device{}());
}

TEST_F(Engines, AStoppedOneDelaysNobodyForLong) {
  auto stopped = start("stopped", environment(), {"--step-ms", "3"});
  ASSERT_TRUE(eventually([&] { return stopped->figure("step", "step") >= 20; }));
  stop_without_locks(*stopped);
  auto other = start("other", environment());
  expect_verified(*other);
  stopped->kill(SIGCONT);
  expect_verified(*stopped);
}

TEST_F(Engines, AShortPoolQueuesAndLosesNothing) {
  const Environment tight = environment("KVCACHED_POOL", "256MiB");
  auto first = start("first", tight);
  auto second = start("second", tight);
  expect_verified(*first);
  expect_verified(*second);
}

TEST_F(Engines, AMinimumStaysReservedForItsTenant) {
  Environment modest = environment("KVCACHED_MIN", "500MiB");
  auto guaranteed = start("guaranteed", modest, {"--step-ms", "3"});
  ASSERT_TRUE(eventually([&] { return guaranteed->figure("step", "step") >= 1; }));
  auto greedy = start("greedy", environment(), {"--step-ms", "3"});
  while (greedy->running() && guaranteed->running()) {
    const auto pool = pool_in(pool_.path());
    if (!pool) continue;
    for (const auto& t : pool->tenants) {
      if (t.name == "greedy") {
        EXPECT_LE(bytes_of(t.charged).value, 300ULL << 20);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  expect_verified(*guaranteed);
  expect_verified(*greedy);
}

TEST_F(Engines, AMaximumHolds) {
  auto engine = start("bounded", environment("KVCACHED_MAX", "128MiB"));
  expect_verified(*engine);
  EXPECT_LE(engine->figure("summary", "resident_peak_bytes"), 128LL << 20);
}

// ---- Bad settings: one line that names the variable or the file, and the engine runs on.

void expect_one_line(EngineProcess& engine, const std::string& about) {
  expect_verified(engine);
  const std::string log = engine.errors();
  EXPECT_NE(log.find(about), std::string::npos) << log;
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
}

TEST_F(Engines, ABadPoolSizeIsOneLine) {
  auto engine = start("banana", environment("KVCACHED_POOL", "banana"));
  expect_one_line(*engine, "KVCACHED_POOL=banana");
}

TEST_F(Engines, AShareOfLessThanAPageIsOneLine) {
  for (const std::string variable : {"KVCACHED_POOL", "KVCACHED_MAX"}) {
    auto engine = start("dwarf", environment(variable, "0.0001%"));
    EXPECT_TRUE(eventually([&] { return !engine->errors().empty(); }));
    EXPECT_NE(engine->errors().find(variable + ": comes to less than a page"), std::string::npos)
        << engine->errors();
  }
}

TEST_F(Engines, AMinimumThatThePoolCannotKeepIsOneLine) {
  auto first = start("first", environment("KVCACHED_MIN", "500MiB"), {"--step-ms", "20"});
  ASSERT_TRUE(eventually([&] { return first->figure("step", "step") >= 1; }));
  auto second = start("second", environment("KVCACHED_MIN", "400MiB"));
  expect_one_line(*second, "KVCACHED_MIN");
  expect_verified(*first);
}

TEST_F(Engines, LimitsThatAreNotTheTenantsAreOneLine) {
  auto first = start("twins", environment("KVCACHED_MAX", "300MiB"), {"--step-ms", "20"});
  ASSERT_TRUE(eventually([&] { return first->figure("step", "step") >= 1; }));
  for (const auto& [variable, value] :
       {std::pair("KVCACHED_MAX", "400MiB"), std::pair("KVCACHED_WEIGHT", "7")}) {
    Environment e = environment("KVCACHED_MAX", "300MiB");
    e[variable] = value;
    auto second = start("twins", e);
    expect_one_line(*second, "do not count");
  }
  expect_verified(*first);
  EXPECT_EQ(first->errors(), "");
}

TEST_F(Engines, AMinimumAboveTheMaximumIsOneLine) {
  Environment e = environment("KVCACHED_MIN", "400MiB");
  e["KVCACHED_MAX"] = "300MiB";
  auto engine = start("contradiction", e);
  expect_one_line(*engine, "KVCACHED_MIN");
}

TEST_F(Engines, AFolderThatCannotBeIsOneLine) {
  const std::string file = pool_.path() + "/file";
  std::ofstream(file) << "not a folder";
  auto engine = start("folder", environment("KVCACHED_DIR", file + "/pool"));
  expect_one_line(*engine, file + "/pool");
  EXPECT_NE(engine->output().find("\"mode\":\"static\""), std::string::npos);
}

TEST_F(Engines, ADamagedPoolIsOneLineAndStaysAsItIs) {
  start("maker", environment())->wait();
  const auto pool = pool_in(pool_.path());
  ASSERT_TRUE(pool);
  std::string file;
  for (const auto& entry : std::filesystem::directory_iterator(pool_.path()))
    file = entry.path().string();
  const auto size = std::filesystem::file_size(file);

  std::filesystem::resize_file(file, size / 2);
  expect_one_line(*start("truncated", environment()), file);
  EXPECT_EQ(std::filesystem::file_size(file), size / 2) << "somebody mended what it did not know";

  std::filesystem::resize_file(file, size);
  {
    std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(8);  // behind the magic: the layout's version
    out.write("\xff\xff\xff\x7f", 4);
  }
  expect_one_line(*start("other version", environment()), file);
}

}  // namespace
}  // namespace kvcached::test
