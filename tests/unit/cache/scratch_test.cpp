#include "shim/cache/scratch.hpp"

#include <gtest/gtest.h>

#include "tests/unit/cache/fakes.hpp"

namespace kvcached::cache {
namespace {

using test::Call;
using test::kMiB;
using test::World;

TEST(Scratch, IsSharedAndBoundedByTheDevice) {
  World world(Pages(2048));  // 4 GiB: at most 8 MiB
  EXPECT_EQ(world.scratch.largest(), 2);
  const auto one = world.buffer(kMiB * 64);
  const Bytes bytes = world.scratch.bytes();
  EXPECT_EQ(bytes, kMiB * 8);
  const auto two = world.buffer(kMiB * 640);
  EXPECT_EQ(world.scratch.bytes(), bytes);
  EXPECT_EQ(world.budget.charged(), Pages());
}

TEST(Scratch, GoesWithTheLastUser) {
  World world;
  auto one = world.buffer(kMiB * 8);
  auto two = world.buffer(kMiB * 8);
  one.reset();
  EXPECT_GT(world.scratch.bytes(), Bytes());
  two.reset();
  EXPECT_EQ(world.scratch.bytes(), Bytes());
  EXPECT_TRUE(world.clean());
}

TEST(Scratch, AnExtentThatIsNotReleasedIsUsedAgain) {
  World world;
  ASSERT_EQ(world.scratch.take(0), Result::ok);
  world.driver.fail(Call::release, 0);
  world.scratch.give(0);
  EXPECT_EQ(world.scratch.bytes(), kMiB * 2);
  ASSERT_EQ(world.scratch.take(0), Result::ok);
  EXPECT_EQ(world.driver.extents(), 1U);
  world.scratch.give(0);
  EXPECT_TRUE(world.clean());
}

}  // namespace
}  // namespace kvcached::cache
