// The pool's file, seen from whole processes: who holds it after a fork, and what is said once it
// is gone.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
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

}  // namespace
}  // namespace kvcached::test
