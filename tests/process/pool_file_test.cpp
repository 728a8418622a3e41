// The pool's file, seen from whole processes: who holds it after a fork, and what is said once it
// is gone.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "policy/ledger/file.hpp"
#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

class PoolFileTest : public TenantPool {
 protected:
  std::filesystem::path file() const {
    return std::filesystem::directory_iterator(pool_.path())->path();
  }
};

// It would keep its parent's membership alive beyond the parent's death.
TEST_F(PoolFileTest, AChildForkedDuringTheJoinDoesNotHoldIt) {
  const Tenant a("a", environment());
  const Tenant forker("forker", environment(),
                      {"sh", "-c", "exec " + build_folder() + "/tests/programs/forker"});
  {
    const ledger::PoolFile holder(::open(file().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(holder.try_lock(ledger::LockKind::exclusive));
    forker.say("join");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  EXPECT_EQ(forker.hear(), "holds 0");
  EXPECT_EQ(forker.hear(), "itself 1");
}

TEST_F(PoolFileTest, ItsRemovalIsSaidOnce) {
  const Folder logs;
  const std::string log = logs.path() + "/log";
  const Tenant a("a", environment("KVCACHED_LOG_FILE", log));
  const auto said = [&] {
    std::ifstream stream(log);
    const std::string text(std::istreambuf_iterator<char>(stream), {});
    int count = 0;
    for (std::size_t at = 0; (at = text.find("was removed", at)) != std::string::npos; ++at)
      ++count;
    return count;
  };
  EXPECT_EQ(said(), 0);
  std::filesystem::remove(file());
  EXPECT_TRUE(eventually([&] { return said() != 0; }));
  EXPECT_EQ(a.number("acquire 1000 20000"), 1'000U) << "it goes on";
  std::this_thread::sleep_for(std::chrono::milliseconds(1'500));
  EXPECT_EQ(said(), 1);
}

}  // namespace
}  // namespace kvcached::test
