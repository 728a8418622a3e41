#include "shim/cache/registry.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/unit/cache/fakes.hpp"

namespace kvcached::cache {
namespace {

using test::kMiB;
using test::World;

class RegistryTest : public testing::Test {
 protected:
  std::shared_ptr<Buffer> add(Bytes size) {
    auto buffer = world_.buffer(size);
    EXPECT_TRUE(registry_.add(buffer));
    return buffer;
  }
  World world_;
  Registry registry_;
};

TEST_F(RegistryTest, TellsBaseInteriorAndUnknownApart) {
  const auto buffer = add(kMiB * 5);
  const driver::Address base = buffer->base();
  EXPECT_EQ(registry_.find(base).found, Found::base);
  EXPECT_EQ(registry_.find(base).buffer, buffer);
  const Lookup inside = registry_.find(base + 4711);
  EXPECT_EQ(inside.found, Found::interior);
  EXPECT_EQ(inside.buffer, buffer);
  EXPECT_EQ(inside.offset, Bytes(4711));
  EXPECT_EQ(registry_.find(base + (kMiB * 6).value - 1).found, Found::interior);  // its last page
  EXPECT_EQ(registry_.find(base + (kMiB * 6).value).found, Found::unknown);
  EXPECT_EQ(registry_.find(base - 1).found, Found::unknown);
  EXPECT_EQ(registry_.find(0).found, Found::unknown);
}

TEST_F(RegistryTest, FindsAllWhateverTheOrderInWhichTheyComeAndGo) {
  std::vector<std::shared_ptr<Buffer>> made;
  for (int i = 0; i < 4; ++i) made.push_back(world_.buffer(kMiB * 4));
  for (const int i : {2, 0, 3, 1}) {
    ASSERT_TRUE(registry_.add(made[static_cast<std::size_t>(i)]));
    for (const auto& buffer : registry_.buffers()) {
      EXPECT_EQ(registry_.find(buffer->base()).buffer, buffer);
      EXPECT_EQ(registry_.find(buffer->base() + (kMiB * 4).value - 1).buffer, buffer);
    }
  }
  for (const std::size_t i : {3U, 0U}) {
    registry_.take(made[i]->base());
    EXPECT_EQ(registry_.find(made[i]->base()).found, Found::unknown);
  }
  for (const std::size_t i : {1U, 2U}) EXPECT_EQ(registry_.find(made[i]->base()).buffer, made[i]);
}

TEST_F(RegistryTest, ABufferIsTakenOnce) {
  const driver::Address base = add(kMiB * 4)->base();
  EXPECT_EQ(registry_.take(base + 1).found, Found::interior);
  EXPECT_EQ(registry_.count(), 1U);
  const Lookup first = registry_.take(base);
  EXPECT_EQ(first.found, Found::base);
  EXPECT_NE(first.buffer, nullptr);
  EXPECT_EQ(registry_.take(base).found, Found::unknown);
  EXPECT_TRUE(registry_.empty());
}

TEST_F(RegistryTest, RefusesTheSameAddressTwice) {
  const auto buffer = add(kMiB * 4);
  EXPECT_FALSE(registry_.add(buffer));
  EXPECT_EQ(registry_.count(), 1U);
}

TEST_F(RegistryTest, TakesAContextsBuffers) {
  int other = 0;
  std::shared_ptr<Buffer> foreign;
  ASSERT_EQ(Buffer::create(world_.ground(), kMiB * 2, {&other}, foreign), Result::ok);
  ASSERT_TRUE(registry_.add(foreign));
  add(kMiB * 4);
  add(kMiB * 4);
  EXPECT_EQ(registry_.requested(), kMiB * 10);
  BufferStack taken = registry_.take_all(test::kContext);
  EXPECT_NE(taken.pop(), nullptr);
  EXPECT_NE(taken.pop(), nullptr);
  EXPECT_EQ(taken.pop(), nullptr);
  EXPECT_EQ(registry_.count(), 1U);
  EXPECT_EQ(registry_.find(foreign->base()).found, Found::base);
}

TEST_F(RegistryTest, BuriedBuffersGoWhenTheCaptureEnds) {
  const driver::Address base = add(kMiB * 4)->base();
  world_.driver.set_capture(true);
  {
    Lookup taken = registry_.take(base);
    ASSERT_EQ(taken.buffer->destroy(), Result::not_now);
    registry_.bury(std::move(taken.buffer));
  }
  EXPECT_TRUE(registry_.tend());
  EXPECT_EQ(world_.driver.reservations(), 1U);
  world_.driver.set_capture(false);
  EXPECT_FALSE(registry_.tend());
  EXPECT_TRUE(world_.clean());
}

TEST_F(RegistryTest, ManyThreadsTakeEachBufferOnce) {
  std::vector<driver::Address> bases;
  for (int i = 0; i < 100; ++i) bases.push_back(add(kMiB * 2)->base());
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (const driver::Address base : bases) {
        registry_.find(base + 5);
        const Lookup lookup = registry_.take(base);
        if (lookup.found != Found::base) continue;
        ++taken;
        lookup.buffer->destroy();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken, 100);
  EXPECT_TRUE(registry_.empty());
  EXPECT_TRUE(world_.clean());
}

}  // namespace
}  // namespace kvcached::cache
