// What the pool asks of a process with several caches.
#include "shim/member/duties.hpp"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "shim/cache/cache.hpp"
#include "shim/cache/registry.hpp"
#include "tests/unit/cache/fakes.hpp"

namespace kvcached::test {
namespace {

// Caches of one tensor each, with blocks of a page.
class DutiesTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kBlocks = 100;

  std::shared_ptr<cache::Buffer> buffer(std::uint64_t pages) {
    auto made = world_.buffer(kPageSize * pages);
    EXPECT_TRUE(registry_.add(made));
    buffers_.push_back(made);
    return made;
  }
  std::shared_ptr<cache::Cache> add() {
    const std::array buffers{buffer(kBlocks)};
    const std::array segments{cache::Segment{0, Bytes(), kPageSize, kPageSize}};
    cache::CacheRequest request;
    request.buffers = buffers;
    request.segments = segments;
    request.blocks = kBlocks;
    request.extent_bytes = kPageSize;
    std::shared_ptr<cache::Cache> cache;
    EXPECT_EQ(cache::Cache::create(request, world_.waker, world_.clock, cache), cache::Result::ok);
    return cache;
  }
  static void use(cache::Cache& cache, std::uint64_t blocks) {
    ASSERT_EQ(cache.wait_ready(blocks, Instant::max(), cache::Patience::mapping),
              cache::Result::ok);
    std::array<cache::BlockRange, 8> ranges{};
    ASSERT_EQ(cache.acquire(blocks, true, ranges).blocks, blocks);
  }
  void obey(Pages reuse) {
    ledger::Duty duty;
    duty.reuse = reuse;
    member::obey(duty, false, registry_, buffers_.front()->device());
  }
  void TearDown() override {
    for (const auto& buffer : buffers_) buffer->destroy();
  }

  World world_;
  cache::Registry registry_;
  std::vector<std::shared_ptr<cache::Buffer>> buffers_;
};

// Each uses less than the process may, and both together more.
TEST_F(DutiesTest, CachesOfAProcessMakeWayTogether) {
  const auto large = add();
  const auto small = add();
  use(*large, 60);
  use(*small, 30);
  obey(Pages(60));
  EXPECT_EQ(large->pressure(), 20U);
  EXPECT_EQ(small->pressure(), 10U);
  obey(Pages(90));
  EXPECT_EQ(large->pressure(), 0U);
  EXPECT_EQ(small->pressure(), 0U);
}

TEST_F(DutiesTest, WhatIsWholeComesFirst) {
  const auto cache = add();
  use(*cache, 60);
  ASSERT_EQ(buffer(20)->back_whole(), cache::Result::ok);
  obey(Pages(50));
  EXPECT_EQ(cache->pressure(), 30U);
}

}  // namespace
}  // namespace kvcached::test
