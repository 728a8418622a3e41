// The C++ face of the public interface.
#include "shim/include/kvcached.hpp"
#include "tests/api/gpu.hpp"

namespace kvcached::test {
namespace {

class Cpp : public Gpu {};

TEST_F(Cpp, ATagEndsWithItsScope) {
  CUdeviceptr inside = 0;
  {
    const Tag tag("kv");
    inside = plain(4 * kMiB);
  }
  const CUdeviceptr outside = plain(4 * kMiB);
  std::size_t bytes = 1;
  EXPECT_TRUE(kvcached::resident(inside, 0, 4 * kMiB, bytes));
  EXPECT_EQ(bytes, 0U);
  EXPECT_EQ(kvcached::resident(outside, 0, 4 * kMiB, bytes), Result(KVCACHED_NOT_ELASTIC));
}

TEST_F(Cpp, RangesGrowAndShrink) {
  const CUdeviceptr p = elastic(64 * kMiB);
  std::size_t bytes = 0;
  ASSERT_TRUE(kvcached::grow(p, 0, 8 * kMiB, Milliseconds(1000)));
  ASSERT_TRUE(kvcached::resident(p, 0, 8 * kMiB, bytes));
  EXPECT_EQ(bytes, 8 * kMiB);
  ASSERT_TRUE(kvcached::shrink(p, 0, 8 * kMiB));
  EXPECT_TRUE(eventually([&] { return kvcached::resident(p, 0, 8 * kMiB, bytes) && bytes == 0; }));
}

TEST_F(Cpp, ACacheLivesAndMovesAsAnObject) {
  constexpr std::uint64_t kBlock = 64 << 10;
  const CUdeviceptr p = elastic(64 * kMiB);
  Cache first;
  EXPECT_EQ(first.acquire(1).result, Result(KVCACHED_INVALID)) << "an empty one answered";
  ASSERT_TRUE(Cache::create({{p, kBlock, kBlock}}, 1024, first, {{0, 1}}));
  Cache second = std::move(first);
  EXPECT_EQ(first.handle(), nullptr);
  const Acquired got = second.acquire(100, Milliseconds(2000));
  ASSERT_TRUE(got.result);
  EXPECT_EQ(got.blocks(), 100U);
  kvcached_cache_info info{};
  ASSERT_TRUE(second.describe(info));
  EXPECT_EQ(info.live, 101U);
  EXPECT_FALSE(second.stripes().empty());
  EXPECT_TRUE(second.expect(10));
  EXPECT_TRUE(second.release(got.ranges));
  EXPECT_TRUE(second.acquire_ranges({{500, 20}, {900, 1}}, Milliseconds(2000)));
  EXPECT_EQ(second.acquire_ranges({{500, 1}}), Result(KVCACHED_INVALID));
  second.reset();
  Cache third;
  EXPECT_TRUE(Cache::create({{p, kBlock, kBlock}}, 1024, third)) << "reset did not let go";
}

TEST_F(Cpp, AModelHasACapacity) {
  Capacity capacity;
  Model model{"small", 2, 8, 64, 2, 4096, 16};
  ASSERT_TRUE(register_model(model, capacity));
  EXPECT_EQ(capacity.bytes_per_token, 4096U);
  EXPECT_GT(capacity.tokens, 0U);
  model.bytes_per_token = 1000;
  ASSERT_TRUE(register_model(model, capacity));
  EXPECT_EQ(capacity.bytes_per_token, 1000U);
}

}  // namespace
}  // namespace kvcached::test
