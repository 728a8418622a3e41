// Parts of a buffer that nobody claimed are backed as work touches them.
#include <gtest/gtest.h>

#include "shim/cache/buffer.hpp"
#include "tests/unit/cache/fakes.hpp"

namespace kvcached::cache {
namespace {

using test::Call;
using test::kMiB;
using test::World;

TEST(BufferPart, BacksThePagesThatAreTouchedAndNoOthers) {
  World world(Pages(16384));                    // scratch extents of up to 64 MiB
  const auto buffer = world.buffer(kMiB * 61);  // 31 pages
  EXPECT_EQ(buffer->back_part(kMiB * 9, Bytes(1)), Result::ok);
  EXPECT_EQ(buffer->held(), Pages(1));
  EXPECT_EQ(buffer->resident(kMiB * 8, kMiB * 2), kMiB * 2);
  EXPECT_EQ(buffer->back_part(kMiB * 7, kMiB * 6), Result::ok);  // pages 3 to 6
  EXPECT_EQ(buffer->held(), Pages(4));
  EXPECT_EQ(buffer->resident(kMiB * 6, kMiB * 8), kMiB * 8);
  const std::uint64_t charges = world.budget.charges();
  EXPECT_EQ(buffer->back_part(kMiB * 7, kMiB * 6), Result::ok);
  EXPECT_EQ(world.budget.charges(), charges) << "nothing is to be charged";
  EXPECT_EQ(buffer->back_part({}, {}), Result::ok);
  EXPECT_EQ(buffer->back_part(kMiB * 62, kMiB), Result::ok);
  EXPECT_EQ(buffer->held(), Pages(4));
  EXPECT_EQ(buffer->use(), Use::unclaimed);
  EXPECT_TRUE(world.exact());
  EXPECT_EQ(buffer->back_part(kMiB * 14, Bytes::max()), Result::ok);
  EXPECT_EQ(buffer->back_part({}, kMiB * 6), Result::ok);
  EXPECT_EQ(buffer->held(), Pages(31));
  EXPECT_EQ(buffer->use(), Use::whole);
  EXPECT_EQ(world.scratch.bytes(), Bytes());
  EXPECT_EQ(buffer->destroy(), Result::ok);
  EXPECT_TRUE(world.clean());
}

TEST(BufferPart, EveryFailureLeavesWhatWasBackedBefore) {
  for (const Call call : {Call::create, Call::unmap, Call::map}) {
    for (std::uint64_t nth = 0; nth < 40; ++nth) {
      World world(Pages(16384));
      const auto buffer = world.buffer(kMiB * 62);
      ASSERT_EQ(buffer->back_part(kMiB * 10, kMiB * 2), Result::ok);
      world.driver.fail(call, nth);
      const bool part = nth % 2 == 0;
      const Result result = part ? buffer->back_part(kMiB * 6, kMiB * 30) : buffer->back_whole();
      EXPECT_EQ(buffer->resident(kMiB * 10, kMiB * 2), kMiB * 2);
      EXPECT_TRUE(world.exact()) << static_cast<int>(call) << " " << nth;
      if (result != Result::ok) {
        EXPECT_EQ(world.budget.charged(), Pages(1));
      }
      world.driver.fail_nothing();
      EXPECT_EQ(buffer->back_whole(), Result::ok);
      EXPECT_EQ(buffer->held(), Pages(31));
      EXPECT_EQ(buffer->destroy(), Result::ok);
      EXPECT_TRUE(world.clean());
    }
  }
}

TEST(BufferPart, IsNotForOthersBuffers) {
  World world(Pages(1024), Pages(2));
  const auto buffer = world.buffer(kMiB * 14);
  EXPECT_EQ(buffer->back_part({}, kMiB * 6), Result::shortage);
  EXPECT_EQ(world.budget.charged(), Pages());
  ASSERT_EQ(buffer->back_part({}, kMiB * 4), Result::ok);
  buffer->abandon();
  EXPECT_EQ(buffer->back_part({}, kMiB), Result::lost);
}

}  // namespace
}  // namespace kvcached::cache
