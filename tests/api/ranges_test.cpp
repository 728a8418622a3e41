// Byte ranges of elastic allocations through the public interface.
#include "tests/api/gpu.hpp"

namespace kvcached::test {
namespace {

using Ranges = Gpu;

TEST_F(Ranges, PlainMemoryIsNotElastic) {
  const CUdeviceptr p = plain(8 * kMiB);
  std::size_t out = 0;
  EXPECT_EQ(kvcached_resident(p, 0, kMiB, &out), KVCACHED_NOT_ELASTIC);
  EXPECT_EQ(kvcached_grow(p, 0, kMiB, 0), KVCACHED_NOT_ELASTIC);
  EXPECT_EQ(kvcached_shrink(p, 0, kMiB), KVCACHED_NOT_ELASTIC);
  EXPECT_EQ(kvcached_back_whole(p, 0), KVCACHED_NOT_ELASTIC);
}

TEST_F(Ranges, SmallAllocationsStayPlain) {
  const CUdeviceptr p = elastic(kMiB);
  std::size_t out = 0;
  EXPECT_EQ(kvcached_resident(p, 0, kMiB, &out), KVCACHED_NOT_ELASTIC);
}

TEST_F(Ranges, GrowsWhereAskedAndNowhereElse) {
  const std::size_t size = 256 * kMiB;
  const CUdeviceptr p = elastic(size);
  EXPECT_EQ(resident(p, 0, size), 0U);
  ASSERT_EQ(kvcached_grow(p, 64 * kMiB, 16 * kMiB, 1000), KVCACHED_OK);
  EXPECT_EQ(resident(p, 64 * kMiB, 16 * kMiB), 16 * kMiB);
  EXPECT_LE(resident(p, 0, size), 32 * kMiB);
  EXPECT_TRUE(holds(p + 64 * kMiB, 16 * kMiB, 0)) << "new memory is not zero";
  fill(p + 64 * kMiB, 16 * kMiB, 0x5a);
  // Growing again keeps what is there.
  ASSERT_EQ(kvcached_grow(p, 60 * kMiB, 24 * kMiB, 1000), KVCACHED_OK);
  EXPECT_TRUE(holds(p + 64 * kMiB, 16 * kMiB, 0x5a));
}

TEST_F(Ranges, UnbackedAddressesAreHarmless) {
  const CUdeviceptr p = elastic(64 * kMiB);
  fill(p, 64 * kMiB, 0x11);
  ASSERT_EQ(kvcached_grow(p, 0, 64 * kMiB, 1000), KVCACHED_OK);
  EXPECT_TRUE(holds(p, 64 * kMiB, 0)) << "a stray write reached new memory";
}

TEST_F(Ranges, ShrinkGivesBackAfterAFence) {
  const std::size_t size = 128 * kMiB;
  const CUdeviceptr p = elastic(size);
  ASSERT_EQ(kvcached_grow(p, 0, size, 1000), KVCACHED_OK);
  fill(p, size, 0x77);
  ASSERT_EQ(kvcached_shrink(p, 0, 64 * kMiB), KVCACHED_OK);
  EXPECT_TRUE(eventually([&] { return resident(p, 0, 64 * kMiB) == 0; }));
  EXPECT_TRUE(holds(p + 64 * kMiB, 64 * kMiB, 0x77));
  ASSERT_EQ(kvcached_grow(p, 0, 64 * kMiB, 1000), KVCACHED_OK);
  EXPECT_TRUE(holds(p, 64 * kMiB, 0)) << "old contents came back";
}

TEST_F(Ranges, BadArgumentsChangeNothing) {
  const CUdeviceptr p = elastic(32 * kMiB);
  EXPECT_EQ(kvcached_grow(p, 33 * kMiB, kMiB, 0), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_grow(p, 0, 33 * kMiB, 0), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_grow(p, SIZE_MAX, 2, 0), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_shrink(p, 32 * kMiB, 2), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_resident(p, 0, kMiB, nullptr), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_grow(p + 16 * kMiB, 0, 17 * kMiB, 0), KVCACHED_INVALID) << "past the end";
  EXPECT_EQ(resident(p, 0, 32 * kMiB), 0U);
}

TEST_F(Ranges, BackedWholeBehavesAsPlain) {
  const CUdeviceptr p = elastic(48 * kMiB + 4096);
  ASSERT_EQ(kvcached_back_whole(p, 1000), KVCACHED_OK);
  EXPECT_EQ(resident(p, 0, 48 * kMiB + 4096), 48 * kMiB + 4096);
  fill(p, 48 * kMiB + 4096, 0x21);
  EXPECT_TRUE(holds(p, 48 * kMiB + 4096, 0x21));
}

TEST_F(Ranges, BackingWholeWaitsForTheWorkInFlight) {
  const std::size_t size = 512 * kMiB;
  const CUdeviceptr p = elastic(size);
  for (unsigned i = 0; i < 8; ++i) ASSERT_EQ(cuMemsetD8Async(p, 0, size, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(kvcached_back_whole(p, 1000), KVCACHED_OK);
  EXPECT_EQ(cuStreamQuery(nullptr), CUDA_SUCCESS) << "memory was mapped under the fill's feet";
}

TEST_F(Ranges, MoreThanThePoolIsShortAndChangesNothing) {
  const std::size_t size = 8192 * kMiB;  // twice the simulated GPU
  if (std::size_t free = 0, total = 0;
      cuMemGetInfo(&free, &total) == CUDA_SUCCESS && total > size / 2) {
    // On a large GPU the reservation is made larger than it instead.
    const CUdeviceptr p = elastic(total + (total & (2 * kMiB - 1)));
    EXPECT_EQ(kvcached_grow(p, 0, total, 0), KVCACHED_SHORT);
    EXPECT_EQ(resident(p, 0, total), 0U);
    return;
  }
  const CUdeviceptr p = elastic(size);
  EXPECT_EQ(kvcached_grow(p, 0, size, 0), KVCACHED_SHORT);
  EXPECT_EQ(resident(p, 0, size), 0U);
  EXPECT_EQ(kvcached_grow(p, 0, 64 * kMiB, 0), KVCACHED_OK) << "a refusal left a trace";
}

TEST(Tags, PopWithoutPushIsRefused) {
  EXPECT_EQ(kvcached_tag_pop(), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_tag_push(nullptr), KVCACHED_INVALID);
}

}  // namespace
}  // namespace kvcached::test
