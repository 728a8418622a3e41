// Several caches of one process: what one holds idle, another may have, before anybody else's.
#include <gtest/gtest.h>

#include <string>

#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

class SeveralCaches : public TenantPool {
 protected:
  // Holds what it has once taken, and uses none of it.
  static void hoard(const Tenant& tenant, std::uint64_t blocks) {
    const std::string count = std::to_string(blocks);
    EXPECT_GE(tenant.number("acquire " + count + " 20000"), blocks);
    EXPECT_EQ(tenant.ask("expect " + count), "expecting");
    EXPECT_EQ(tenant.ask("release"), "released");
  }
};

TEST_F(SeveralCaches, WithinTheirMaximum) {
  const Tenant a("a", environment("KVCACHED_MAX", "400MiB"));
  hoard(a, 3'000);
  EXPECT_EQ(a.number("second 2000 10000"), 2'000U);
}

TEST_F(SeveralCaches, BesideOthersThatHoldTheRest) {
  const Tenant other("other", environment());
  EXPECT_GE(other.number("acquire 5000 20000"), 5'000U);  // in use
  const Tenant a("a", environment());
  hoard(a, 1'200);
  EXPECT_EQ(a.number("second 1000 10000"), 1'000U);
}

// Of two processes as of two caches.
TEST_F(SeveralCaches, ProcessesOfOneTenant) {
  const Tenant a("same", environment("KVCACHED_MAX", "400MiB"));
  const Tenant b("same", environment("KVCACHED_MAX", "400MiB"));
  hoard(a, 3'000);
  EXPECT_EQ(b.number("acquire 2000 10000"), 2'000U);
}

}  // namespace
}  // namespace kvcached::test
