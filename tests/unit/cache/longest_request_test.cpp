// What a member tells of its model's longest request: from the last reach that was known, and
// without a look at the caches at every wake.
#include "shim/cache/registry.hpp"
#include "shim/member/sequence.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::test {
namespace {

using std::chrono::milliseconds;

constexpr driver::DeviceId kDevice{0};
constexpr std::uint32_t kLongest = 4096;

// A page for 16 tokens.
ledger::ModelShape shape() {
  ledger::ModelShape model;
  model.max_seq_len = kLongest;
  model.block_tokens = 16;
  model.bytes_per_token = kPageSize.value / 16;
  return model;
}

class LongestRequest : public testing::Test {
 protected:
  bool look(std::optional<Pages> reach, std::size_t caches = 0) {
    return sequence_.look(reach, caches, now_, registry_, kDevice);
  }

  Instant now_{std::chrono::hours(1)};
  cache::Registry registry_;
  member::Sequence sequence_;
};

TEST_F(LongestRequest, WithoutAPoolTheLastReachHolds) {
  sequence_.describe(shape());
  EXPECT_FALSE(look(std::nullopt));
  EXPECT_EQ(sequence_.current(), kLongest) << "nothing says otherwise";
  EXPECT_TRUE(look(Pages(10)));
  EXPECT_EQ(sequence_.current(), 160U);
  now_ += milliseconds(2000);
  EXPECT_FALSE(look(std::nullopt));
  EXPECT_EQ(sequence_.current(), 160U);
  EXPECT_EQ(sequence_.fitting(std::nullopt, registry_, kDevice), 160U);
  EXPECT_TRUE(look(Pages(0)));
  EXPECT_EQ(sequence_.current(), 0U) << "that was said";
}

TEST_F(LongestRequest, CachesAreLookedAtWhenTheyMayTellSomethingElse) {
  sequence_.describe(shape());
  ASSERT_TRUE(look(Pages(10)));
  ASSERT_EQ(sequence_.current(), 160U);
  Rig rig(tensors(1, 8, kPageSize));
  ASSERT_EQ(rig.make(), cache::Result::ok);
  ASSERT_TRUE(registry_.add(rig.buffers[0]));
  now_ += milliseconds(999);
  EXPECT_FALSE(look(Pages(10))) << "nobody has said that it came";
  EXPECT_EQ(sequence_.current(), 160U);
  // All that the cache has is enough for the longest request that it can hold.
  EXPECT_TRUE(look(Pages(10), 1));
  EXPECT_EQ(sequence_.current(), kLongest);
  EXPECT_TRUE(look(Pages(4), 1));
  EXPECT_EQ(sequence_.current(), 64U);
}

TEST_F(LongestRequest, CachesAreLookedAtOnceASecond) {
  sequence_.describe(shape());
  ASSERT_TRUE(look(Pages(10)));
  Rig rig(tensors(1, 8, kPageSize));
  ASSERT_EQ(rig.make(), cache::Result::ok);
  ASSERT_TRUE(registry_.add(rig.buffers[0]));
  now_ += milliseconds(1000);
  EXPECT_TRUE(look(Pages(10)));
  EXPECT_EQ(sequence_.current(), kLongest);
}

TEST_F(LongestRequest, AListenerAndAModelThatAreNewAreTold) {
  sequence_.describe(shape());
  ASSERT_TRUE(look(Pages(10)));
  std::uint32_t told = 0;
  sequence_.on_change([&](std::uint32_t tokens) { told = tokens; });
  EXPECT_FALSE(look(Pages(10)));
  EXPECT_EQ(told, 160U);
  told = 0;
  sequence_.describe(shape());
  EXPECT_TRUE(look(Pages(10)));
  EXPECT_EQ(told, 160U);
}

}  // namespace
}  // namespace kvcached::test
