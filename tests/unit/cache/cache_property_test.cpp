// Long random lives of a cache: whatever is called in whatever order, with whatever driver call
// failing, a live block keeps its contents and the books never understate.
#include <gtest/gtest.h>

#include <random>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using std::chrono::milliseconds;
using test::Call;
using test::Rig;
using test::Shape;
using test::Status;
using test::tensors;

Shape shape_of(unsigned seed) {
  switch (seed % 4) {
    case 0:
      return tensors(3, 1'500, Bytes(64 << 10));
    case 1: {  // one buffer, nothing on page edges, pinned blocks
      Shape shape;
      shape.blocks = 900;
      for (std::uint64_t i = 0; i < 4; ++i) {
        shape.segments.push_back({0, Bytes(99 + i * 900 * 50'003), Bytes(50'003), Bytes(50'003)});
      }
      shape.buffers = {Bytes(99 + 4 * 900 * 50'003)};
      shape.pinned = {{0, 1}, {898, 2}};
      return shape;
    }
    case 2: {  // packed, block-major
      Shape shape;
      shape.blocks = 700;
      for (std::uint64_t i = 0; i < 5; ++i) {
        shape.segments.push_back({0, Bytes(i * 60'000), Bytes(300'000), Bytes(60'000)});
      }
      shape.buffers = {Bytes(700 * 300'000)};
      return shape;
    }
    default: {  // unequal strides
      Shape shape = tensors(2, 1'200, Bytes(73'728));
      shape.segments.push_back({2, Bytes(), Bytes(1'320), Bytes(1'320)});
      shape.buffers.push_back(Bytes(1'200 * 1'320));
      shape.warm_cap = Bytes(32 << 20);
      return shape;
    }
  }
}

// Than a pool this small would choose.
Shape with_larger_extents(Shape shape) {
  shape.extent = Bytes(8 << 20);
  return shape;
}

class RandomLife {
 public:
  RandomLife(unsigned seed, bool with_faults)
      : random_(seed),
        with_faults_(with_faults),
        rig_(with_larger_extents(shape_of(seed)), Pages(600), Pages(150)) {}

  void run(int steps) {
    ASSERT_EQ(rig_.make(), Result::ok);
    for (const BlockRange& range : rig_.shape().pinned) {
      for (std::uint64_t b = range.first; b < range.end(); ++b) {
        rig_.mark(b);
        pinned_.push_back(b);
      }
    }
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE(testing::Message() << "step " << i);
      step();
      check();
    }
    end();
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }

  void step() {
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        rig_.acquire(1 + below(80), below(5) == 0, 1 + below(20));
        break;
      case 3:
      case 4:
        release_some();
        break;
      case 5:
        rig_.cache->expect(below(3) == 0 ? below(300) : 0);
        break;
      case 6:
        rig_.driver.finish();
        break;
      case 7:
        rig_.clock.advance(milliseconds(below(900)));
        break;
      case 8:
        rig_.driver.set_capture(below(3) == 0);
        break;
      case 9:
        if (below(4) == 0) rig_.cache->trim();
        rig_.budget.set_pool(Pages(10 + below(120)));
        break;
      case 10:
        rig_.cache->wait_ready(below(100), Instant::max(), Patience::mapping);
        break;
      default:
        take_named();
        break;
    }
    if (with_faults_ && below(6) == 0) {
      rig_.driver.fail(static_cast<Call>(below(test::kCalls)), below(12),
                       below(2) == 0 ? Status::failed : Status::out_of_memory,
                       below(20) == 0 ? 1 : 0);
    }
    for (std::uint64_t i = below(6); i > 0; --i) rig_.cache->work();
  }

  // One or two stripes by number, where nobody has a block of them.
  void take_named() {
    const auto stripes = rig_.cache->stripes();
    std::vector<BlockRange> ranges = {stripes[below(stripes.size())]};
    if (below(2) == 0) ranges.push_back(stripes[below(stripes.size())]);
    const auto free = [&](const BlockRange& range) {
      const auto live = rig_.marks.lower_bound(range.first);
      return live == rig_.marks.end() || live->first >= range.end();
    };
    const bool all_free = std::all_of(ranges.begin(), ranges.end(), free) &&
                          (ranges.size() == 1 || ranges[0] != ranges[1]);
    const Instant deadline = below(4) == 0 ? rig_.clock.now() : Instant::max();
    const Result result = rig_.cache->acquire_ranges(ranges, deadline);
    // A shortage may be found first.
    EXPECT_TRUE(all_free ? result != Result::invalid : result != Result::ok);
    if (result != Result::ok) return;
    for (const BlockRange& range : ranges)
      for (std::uint64_t b = range.first; b < range.end(); ++b) rig_.mark(b);
  }

  void release_some() {
    std::vector<BlockRange> ranges;
    const bool all = below(6) == 0;
    const std::uint64_t from = below(rig_.shape().blocks);
    for (const auto& [block, mark] : rig_.marks) {
      const bool is_pinned = std::find(pinned_.begin(), pinned_.end(), block) != pinned_.end();
      if (is_pinned || (!all && (block < from || block > from + 100))) continue;
      if (!ranges.empty() && ranges.back().end() == block) {
        ++ranges.back().count;
      } else {
        ranges.push_back({block, 1});
      }
    }
    std::shuffle(ranges.begin(), ranges.end(), random_);
    EXPECT_EQ(rig_.release(ranges), Result::ok);
  }

  void check() {
    const CacheStats stats = rig_.cache->stats();
    EXPECT_EQ(stats.live, rig_.marks.size());
    EXPECT_EQ(stats.ready, rig_.cache->available());
    EXPECT_LE(stats.live + stats.ready + stats.lost_blocks, stats.blocks);
    EXPECT_EQ(stats.held, rig_.budget.charged());
    EXPECT_TRUE(rig_.exact());
    EXPECT_EQ(rig_.driver.violations(), 0U);
    if (below(10) == 0) rig_.verify_all();
  }

  void end() {
    // A life in which nothing happened proves nothing.
    EXPECT_GT(rig_.cache->stats().grows, 20U);
    EXPECT_GT(rig_.cache->stats().releases, 10U);
    EXPECT_GT(rig_.cache->stats().short_grants, 5U);
    if (with_faults_) {
      EXPECT_GT(rig_.driver.struck(), 50U);
    }
    rig_.driver.fail_nothing();
    rig_.driver.set_capture(false);
    rig_.settle();  // what the driver would not let go is tried again, as long as the cache lives
    rig_.verify_all();
    rig_.cache->close();
    rig_.settle();
    EXPECT_TRUE(rig_.cache->finished());
    EXPECT_EQ(rig_.budget.charged(), Pages());
    rig_.cache.reset();
    rig_.buffers.clear();
    EXPECT_TRUE(rig_.clean());
    EXPECT_EQ(rig_.driver.violations(), 0U);
  }

  std::mt19937 random_;
  bool with_faults_;
  Rig rig_;
  std::vector<std::uint64_t> pinned_;
};

class CacheProperty : public testing::TestWithParam<unsigned> {};

TEST_P(CacheProperty, HoldsInPeace) { RandomLife(GetParam(), false).run(1'500); }
TEST_P(CacheProperty, HoldsUnderFaults) { RandomLife(GetParam(), true).run(1'500); }

INSTANTIATE_TEST_SUITE_P(Seeds, CacheProperty, testing::Range(0U, 8U));

}  // namespace
}  // namespace kvcached::cache
