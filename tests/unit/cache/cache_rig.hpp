// A cache over the fake driver with an engine's habits: it writes a mark of its own into every
// block it gets, keeps work in flight on them, and looks at the marks again.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/fakes.hpp"

namespace kvcached::test {

struct Shape {
  std::vector<Bytes> buffers;
  std::vector<cache::Segment> segments;
  std::uint64_t blocks = 0;
  std::vector<cache::BlockRange> pinned;
  Bytes extent;
  Bytes warm_cap = Bytes::max();
};

// `count` tensors, a buffer each.
inline Shape tensors(std::uint32_t count, std::uint64_t blocks, Bytes stride) {
  Shape shape;
  shape.blocks = blocks;
  for (std::uint32_t i = 0; i < count; ++i) {
    shape.buffers.push_back(stride * blocks);
    shape.segments.push_back({i, Bytes(), stride, stride});
  }
  return shape;
}

class Rig : public World {
 public:
  explicit Rig(Shape shape, Pages capacity = Pages(4096), Pages pool = Pages(4000))
      : World(capacity, pool), shape_(std::move(shape)) {
    for (const Bytes size : shape_.buffers) buffers.push_back(buffer(size));
  }
  // A claimed buffer and its cache own each other until the buffer is destroyed, which takes more
  // than one try where the driver is still to fail.
  ~Rig() {
    driver.set_capture(false);
    for (const auto& buffer : buffers) {
      while (buffer->destroy() == cache::Result::not_now) {
      }
    }
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  cache::Result make() {
    cache::CacheRequest request;
    request.buffers = buffers;
    request.segments = shape_.segments;
    request.blocks = shape_.blocks;
    request.pinned = shape_.pinned;
    request.extent_bytes = shape_.extent;
    request.warm_cap = shape_.warm_cap;
    return cache::Cache::create(request, waker, clock, cache);
  }

  // As the agent does: until there is nothing to do at once. Bounded, so that a mistake ends.
  std::size_t work() {
    std::size_t units = 0;
    while (cache->work().worked) {
      if (++units > 100'000) {
        ADD_FAILURE() << "work without end";
        break;
      }
    }
    return units;
  }
  // All stripes that want to go are gone.
  void settle() {
    for (int i = 0; i < 60; ++i) {
      work();
      driver.finish();
      clock.advance(std::chrono::milliseconds(60));
    }
  }

  // Takes blocks and marks them.
  std::vector<cache::BlockRange> acquire(std::uint64_t blocks, bool whole = false,
                                         std::size_t most_ranges = 64) {
    std::vector<cache::BlockRange> ranges(most_ranges);
    const cache::Acquired got = cache->acquire(blocks, whole, ranges);
    ranges.resize(got.ranges);
    last = got;
    std::uint64_t sum = 0;
    for (const cache::BlockRange& range : ranges) {
      sum += range.count;
      for (std::uint64_t b = range.first; b < range.end(); ++b) {
        EXPECT_FALSE(marks.contains(b)) << "block " << b << " handed out twice";
        mark(b);
      }
    }
    EXPECT_EQ(sum, got.blocks);
    return ranges;
  }
  // Waits for them first.
  std::vector<cache::BlockRange> grow(std::uint64_t blocks) {
    EXPECT_EQ(cache->wait_ready(blocks, Instant::max(), cache::Patience::mapping),
              cache::Result::ok);
    auto ranges = acquire(blocks);
    EXPECT_EQ(last.blocks, blocks);
    return ranges;
  }
  // Gives blocks back while work on them is still in flight.
  cache::Result release(const std::vector<cache::BlockRange>& ranges) {
    for (const cache::BlockRange& range : ranges) {
      for (std::uint64_t b = range.first; b < range.end(); ++b) {
        verify(b);
        for (const cache::Segment& s : shape_.segments) driver.launch(address(s, b));
      }
    }
    const cache::Result result = cache->release(ranges);
    if (result != cache::Result::ok) return result;
    for (const cache::BlockRange& range : ranges) {
      for (std::uint64_t b = range.first; b < range.end(); ++b) marks.erase(b);
    }
    return result;
  }
  void verify_all() {
    for (const auto& [block, mark] : marks) verify(block);
  }
  void mark(std::uint64_t block) {
    marks[block] = ++last_mark_;
    for (const cache::Segment& s : shape_.segments) {
      driver.poke(address(s, block), last_mark_ * 2);
      driver.poke(address(s, block) + s.block_bytes.value - 1, last_mark_ * 2 + 1);
    }
  }
  void verify(std::uint64_t block) {
    for (const cache::Segment& s : shape_.segments) {
      EXPECT_EQ(driver.peek(address(s, block)), marks[block] * 2) << "block " << block;
      EXPECT_EQ(driver.peek(address(s, block) + s.block_bytes.value - 1), marks[block] * 2 + 1);
    }
  }
  Address address(const cache::Segment& s, std::uint64_t block) const {
    return buffers[s.buffer]->base() + s.offset.value + s.stride.value * block;
  }
  const Shape& shape() const { return shape_; }

  std::vector<std::shared_ptr<cache::Buffer>> buffers;
  std::shared_ptr<cache::Cache> cache;
  std::map<std::uint64_t, std::uint64_t> marks;  // by live block
  cache::Acquired last;

 private:
  Shape shape_;
  std::uint64_t last_mark_ = 0;
};

// Two tensors of 4,000 blocks in a pool that has room for all, unless a test starts with another.
class RigTest : public testing::Test {
 protected:
  static constexpr Bytes kBlock{64 << 10};  // 32 blocks a page

  void start(Shape shape, Pages capacity = Pages(4096), Pages pool = Pages(4000)) {
    rig_.emplace(std::move(shape), capacity, pool);
    ASSERT_EQ(rig_->make(), cache::Result::ok);
  }
  void SetUp() override { start(tensors(2, 4'000, kBlock)); }
  Rig& rig() { return *rig_; }
  cache::Cache& cache() { return *rig_->cache; }

 private:
  std::optional<Rig> rig_;
};

}  // namespace kvcached::test
