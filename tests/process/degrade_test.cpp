// A model whose longest request does not fit any more: its program is told what does, and told
// again when there is room.
#include <gtest/gtest.h>

#include <string>

#include "tests/process/tenant_process.hpp"

namespace kvcached::test {
namespace {

constexpr std::uint64_t kLongest = 16'000;  // tokens: 1,000 blocks of 128 KiB, 125 MiB

class Degrade : public TenantPool {
 protected:
  static bool told(const Tenant& tenant, std::uint64_t least, std::uint64_t most) {
    return eventually([&] {
      const std::uint64_t fits = tenant.number("fits");
      return fits >= least && fits <= most;
    });
  }
  std::string stat() const { return kvcached("stat").text; }
};

TEST_F(Degrade, OthersMinimumsShortenRequestsUntilTheyGo) {
  const Tenant a("a", environment());
  ASSERT_EQ(a.ask("model 16000"), "told");
  EXPECT_EQ(a.number("acquire 1000 20000"), 1'000U);
  const Tenant b("b", environment());
  ASSERT_EQ(kvcached("set b min=740MiB").status, 0);
  // 60 MiB are 7,680 tokens, less what does not fill a stripe.
  ASSERT_TRUE(told(a, 5'000, 7'680));
  const std::uint64_t fits = a.number("fits");
  EXPECT_EQ(fits % 16, 0U);
  const std::string shown = "requests up to " + std::to_string(fits) + " of 16000 tokens";
  EXPECT_TRUE(eventually([&] { return stat().find(shown) != std::string::npos; })) << stat();
  // What runs keeps what it has; what is told can be held, whatever b takes of its own.
  EXPECT_EQ(a.ask("release"), "released");
  EXPECT_TRUE(eventually([&] { return b.number("acquire 5900 20000") != 0; }));
  EXPECT_EQ(a.number("acquire " + std::to_string(fits / 16) + " 20000"), fits / 16);
  EXPECT_EQ(a.ask("release"), "released");

  ASSERT_EQ(kvcached("set b min=0").status, 0);
  EXPECT_TRUE(told(a, kLongest, kLongest)) << a.ask("fits");
  EXPECT_TRUE(eventually([&] { return stat().find("requests up to") == std::string::npos; }));
}

TEST_F(Degrade, ANewcomersMinimumCountsAsLongAsItLives) {
  const Tenant a("a", environment());
  ASSERT_EQ(a.ask("model 16000"), "told");
  Tenant b("b", environment("KVCACHED_MIN", "740MiB"));
  EXPECT_TRUE(told(a, 1, 7'680)) << a.ask("fits");
  b.end();
  EXPECT_TRUE(told(a, kLongest, kLongest)) << a.ask("fits");
}

TEST_F(Degrade, AMaximumFromTheStart) {
  const Tenant a("a", environment("KVCACHED_MAX", "80MiB"));
  ASSERT_EQ(a.ask("model 16000"), "told");
  EXPECT_TRUE(told(a, 1, 10'240)) << a.ask("fits");
  ASSERT_EQ(kvcached("set a max=100%").status, 0);
  EXPECT_TRUE(told(a, kLongest, kLongest)) << a.ask("fits");
}

}  // namespace
}  // namespace kvcached::test
