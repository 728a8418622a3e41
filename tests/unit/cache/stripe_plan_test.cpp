#include "shim/cache/stripe_plan.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace kvcached::cache {
namespace {

constexpr std::uint64_t kPage = kPageSize.value;
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMB = 1024 * kKiB;

struct Geometry {
  std::string name;
  std::vector<Segment> segments;
  std::vector<Bytes> buffers;
  std::uint64_t blocks = 0;
  Pages pool = pages_up(Bytes(128ULL << 30));
  Bytes extent;
  std::vector<BlockRange> pinned;

  PlanRequest request() const { return {segments, buffers, blocks, pinned, pool, extent}; }
};

// One tensor a buffer.
Geometry separate(std::size_t count, std::uint64_t blocks, std::uint64_t stride) {
  Geometry g;
  g.blocks = blocks;
  for (std::uint32_t i = 0; i < count; ++i) {
    g.segments.push_back({i, Bytes(), Bytes(stride), Bytes(stride)});
    g.buffers.emplace_back(blocks * stride);
  }
  return g;
}

// All tensors behind one another in one buffer, the first at `lead` bytes.
Geometry in_one(std::size_t count, std::uint64_t blocks, std::uint64_t stride, std::uint64_t lead) {
  Geometry g;
  g.blocks = blocks;
  for (std::uint64_t i = 0; i < count; ++i) {
    g.segments.push_back({0, Bytes(lead + i * blocks * stride), Bytes(stride), Bytes(stride)});
  }
  g.buffers = {Bytes(lead + count * blocks * stride)};
  return g;
}

// Block-major: all layers of a block lie together.
Geometry packed(std::size_t layers, std::uint64_t blocks, std::uint64_t row) {
  Geometry g;
  g.blocks = blocks;
  for (std::uint64_t i = 0; i < layers; ++i) {
    g.segments.push_back({0, Bytes(i * row), Bytes(layers * row), Bytes(row)});
  }
  g.buffers = {Bytes(layers * row * blocks)};
  return g;
}

std::vector<Geometry> geometries() {
  std::vector<Geometry> all;
  const auto add = [&](std::string name, Geometry g) {
    g.name = std::move(name);
    all.push_back(std::move(g));
  };
  add("vllm", separate(16, 20'000, 64 * kKiB));
  add("sglang rows", separate(8, 60'000, 2 * kKiB));
  add("mla", separate(5, 9'000, 73'728));
  add("mla in one", in_one(5, 9'000, 73'728, 0));
  add("unaligned", in_one(4, 5'000, 64 * kKiB, 12'345));
  add("odd stride", in_one(3, 70'001, 5'003, 777));
  add("packed", packed(32, 700, 64 * kKiB));
  add("packed odd", packed(7, 5'000, 1'000));
  add("one block", separate(3, 1, 3 * kMB));
  add("blocks larger than extents", separate(2, 40, 5 * kMB + 4'096));
  add("tiny", separate(2, 3, 256));
  {
    Geometry g = separate(2, 10'000, 64 * kKiB);
    g.segments[1].stride = g.segments[1].block_bytes = Bytes(16 * kKiB);
    g.buffers[1] = Bytes(10'000 * 16 * kKiB);
    add("unequal strides", std::move(g));
  }
  {
    Geometry g = separate(2, 30'000, 73'728);
    g.segments[1].stride = g.segments[1].block_bytes = Bytes(132);
    g.buffers[1] = Bytes(30'000 * 132);
    add("indexer", std::move(g));
  }
  {
    Geometry g;  // only a part of every stride is ours, and pages lie between
    g.blocks = 50;
    g.segments = {{0, Bytes(100), Bytes(6 * kMB), Bytes(64 * kKiB)},
                  {0, Bytes(4 * kMB), Bytes(6 * kMB), Bytes(3 * kKiB)}};
    g.buffers = {Bytes(50 * 6 * kMB)};
    add("sparse", std::move(g));
  }
  {
    Geometry g;  // two tensors over one another, as layers of different groups
    g.blocks = 3'000;
    g.segments = {{0, Bytes(), Bytes(64 * kKiB), Bytes(64 * kKiB)},
                  {0, Bytes(), Bytes(64 * kKiB), Bytes(32 * kKiB)},
                  {0, Bytes(), Bytes(48 * kKiB), Bytes(48 * kKiB)}};
    g.buffers = {Bytes(3'000 * 64 * kKiB)};
    add("overlapping", std::move(g));
  }
  {
    Geometry g = separate(4, 4'000, 64 * kKiB);
    g.pinned = {{0, 1}, {2'000, 3}, {3'998, 2}};
    add("pinned", std::move(g));
  }
  {
    Geometry g = in_one(4, 4'000, 5'003, 99);
    g.pinned = {{0, 1}, {700, 900}, {3'998, 2}};
    add("pinned odd", std::move(g));
  }
  {
    Geometry g = separate(4, 4'000, 64 * kKiB);
    g.extent = Bytes(128 * kMB);
    add("large extents", std::move(g));
  }
  return all;
}

class StripePlanOf : public testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override { ASSERT_EQ(StripePlan::make(GetParam().request(), plan_), Result::ok); }
  StripePlan plan_;
};

TEST_P(StripePlanOf, StripesCoverAllBlocksInOrder) {
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < plan_.stripe_count(); ++i) {
    EXPECT_EQ(plan_.stripe(i).first, next);
    EXPECT_GT(plan_.stripe(i).count, 0U);
    EXPECT_EQ(plan_.stripe_of(plan_.stripe(i).first), i);
    EXPECT_EQ(plan_.stripe_of(plan_.stripe(i).end() - 1), i);
    next = plan_.stripe(i).end();
  }
  EXPECT_EQ(next, GetParam().blocks);
}

TEST_P(StripePlanOf, PiecesPartitionEveryBuffer) {
  ASSERT_EQ(plan_.buffer_count(), GetParam().buffers.size());
  for (std::size_t i = 0; i < plan_.buffer_count(); ++i) {
    std::uint64_t next = 0;
    for (const PageRun& run : plan_.partition(i)) {
      ASSERT_EQ(run.first, next);
      ASSERT_LE(run.order, kMaxOrder);
      next = run.end();
    }
    EXPECT_EQ(next, pages_up(GetParam().buffers[i]).value);
  }
}

// The one that matters: every byte of a stripe's blocks lies in the stripe's pieces.
TEST_P(StripePlanOf, PiecesHoldEveryByteOfTheirBlocks) {
  const Geometry& g = GetParam();
  for (std::size_t stripe = 0; stripe < plan_.stripe_count(); ++stripe) {
    std::vector<std::set<std::uint64_t>> pages(g.buffers.size());
    for (const PieceRange& range : plan_.pieces(stripe)) {
      for (std::uint32_t piece = range.first; piece < range.first + range.count; ++piece) {
        const PageRun run = plan_.partition(range.buffer)[piece];
        for (std::uint32_t page = run.first; page < run.end(); ++page) {
          ASSERT_TRUE(pages[range.buffer].insert(page).second) << "a piece named twice";
        }
      }
    }
    const BlockRange& blocks = plan_.stripe(stripe);
    for (const Segment& s : g.segments) {
      for (std::uint64_t block = blocks.first; block < blocks.end(); ++block) {
        const std::uint64_t begin = s.offset.value + block * s.stride.value;
        for (std::uint64_t page = begin / kPage; page <= (begin + s.block_bytes.value - 1) / kPage;
             ++page) {
          ASSERT_TRUE(pages[s.buffer].contains(page))
              << g.name << " stripe " << stripe << " block " << block;
        }
      }
    }
  }
}

TEST_P(StripePlanOf, HoldsLittleThatNoBlockNeeds) {
  // Over all stripes, what they hold is what the blocks need, to the page.
  const Geometry& g = GetParam();
  std::set<std::pair<std::uint32_t, std::uint64_t>> needed;
  for (const Segment& s : g.segments) {
    for (std::uint64_t block = 0; block < g.blocks; ++block) {
      const std::uint64_t begin = s.offset.value + block * s.stride.value;
      for (std::uint64_t page = begin / kPage; page <= (begin + s.block_bytes.value - 1) / kPage;
           ++page) {
        needed.emplace(s.buffer, page);
      }
    }
  }
  std::set<std::pair<std::uint32_t, std::uint64_t>> held;
  for (std::size_t stripe = 0; stripe < plan_.stripe_count(); ++stripe) {
    for (const PieceRange& range : plan_.pieces(stripe)) {
      for (std::uint32_t piece = range.first; piece < range.first + range.count; ++piece) {
        const PageRun run = plan_.partition(range.buffer)[piece];
        for (std::uint32_t page = run.first; page < run.end(); ++page) {
          held.emplace(range.buffer, page);
        }
      }
    }
  }
  EXPECT_EQ(held, needed);
}

TEST_P(StripePlanOf, PinnedBlocksHaveSmallStripes) {
  for (const BlockRange& pinned : GetParam().pinned) {
    const std::size_t stripe = plan_.stripe_of(pinned.first);
    EXPECT_LE(plan_.stripe(stripe).count, std::max<std::uint64_t>(pinned.count * 2, 1'000));
    EXPECT_LE(plan_.pages(stripe).value,
              GetParam().segments.size() * (4 + 2 * pinned.count * 73'728 / kPage));
  }
}

INSTANTIATE_TEST_SUITE_P(Geometries, StripePlanOf, testing::ValuesIn(geometries()),
                         [](const auto& g) {
                           std::string name = g.param.name;
                           for (char& c : name) c = c == ' ' ? '_' : c;
                           return name;
                         });

StripePlan plan_of(const Geometry& g) {
  StripePlan plan;
  EXPECT_EQ(StripePlan::make(g.request(), plan), Result::ok);
  return plan;
}

TEST(StripePlan, GrowsFromSmallToTheCap) {
  const StripePlan plan = plan_of(separate(16, 100'000, 64 * kKiB));
  // 1 % of 128 GiB in 16 segments: 64 MiB each.
  const std::vector<std::uint64_t> pages = {1, 1, 2, 4, 8, 16, 32, 32};
  for (std::size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(plan.pages(i), Pages(16 * pages[i])) << i;
    EXPECT_EQ(plan.stripe(i).count, 32 * pages[i]) << i;
    // One extent in each segment, shared with nobody.
    ASSERT_EQ(plan.pieces(i).size(), 16U);
    for (const PieceRange& range : plan.pieces(i)) EXPECT_EQ(range.count, 1U);
  }
}

TEST(StripePlan, AStripeIsAtMostAboutAHundredthOfThePool) {
  for (const std::size_t segments : {2U, 16U, 64U, 512U}) {
    Geometry g = separate(segments, 4'000, 64 * kKiB);
    const StripePlan plan = plan_of(g);
    for (std::size_t i = 0; i < plan.stripe_count(); ++i) {
      EXPECT_LE(plan.pages(i), g.pool / 100) << segments;
    }
  }
  // A pool so small that a hundredth is no extent: the smallest there are.
  Geometry small = separate(16, 4'000, 64 * kKiB);
  small.pool = Pages(64);
  const StripePlan plan = plan_of(small);
  for (std::size_t i = 0; i < plan.stripe_count(); ++i) EXPECT_EQ(plan.pages(i), Pages(16));
}

TEST(StripePlan, TheLargestExtentCanBeSet) {
  Geometry g = separate(2, 20'000, 64 * kKiB);
  g.extent = Bytes(8 * kMB);
  const StripePlan plan = plan_of(g);
  Order largest = 0;
  for (const PageRun& run : plan.partition(0)) largest = std::max(largest, run.order);
  EXPECT_EQ(largest, 2);
}

TEST(StripePlan, OddStridesCostAtMostThreeCallsASegment) {
  for (const Geometry& g : {separate(4, 60'000, 73'728), in_one(4, 60'000, 73'728, 4'096),
                            in_one(3, 700'001, 5'003, 777)}) {
    const StripePlan plan = plan_of(g);
    for (std::size_t i = 0; i + 1 < plan.stripe_count(); ++i) {
      std::size_t pieces = 0;
      for (const PieceRange& range : plan.pieces(i)) pieces += range.count;
      EXPECT_LE(pieces, 4 * g.segments.size()) << i;  // two edges, and an extent in one or two
    }
  }
}

TEST(StripePlan, LargeStripesEndOnPageEdgesWhereTheStrideAllowsIt) {
  // 256 blocks of 72 KiB are 9 pages.
  Geometry g = separate(4, 60'000, 73'728);
  g.pinned = {{20'000, 2}};  // a small stripe in between, after which all is well again
  const StripePlan plan = plan_of(g);
  std::size_t aligned = 0;
  for (std::size_t i = 0; i + 1 < plan.stripe_count(); ++i) {
    if (plan.stripe(i).count < 256) continue;
    ++aligned;
    EXPECT_EQ(plan.stripe(i).first % 256, 0U) << i;
    EXPECT_EQ(plan.stripe(i).count % 256, 0U) << i;
    for (const PieceRange& range : plan.pieces(i)) EXPECT_LE(range.count, 2U) << i;
  }
  EXPECT_GT(aligned, 50U);
}

TEST(StripePlan, PackedLayersAreOneLane) {
  const StripePlan plan = plan_of(packed(32, 7'000, 64 * kKiB));
  for (std::size_t i = 0; i < plan.stripe_count(); ++i) {
    ASSERT_EQ(plan.pieces(i).size(), 1U);
  }
  EXPECT_EQ(plan.stripe(0).count, 1U);  // 2 MiB a block
  EXPECT_EQ(plan.stripe(6).count, 32U);
}

TEST(StripePlan, BlockBytesAreOfAllSegments) {
  EXPECT_EQ(plan_of(packed(32, 70, 64 * kKiB)).block_bytes(), Bytes(2 * kMB));
  EXPECT_EQ(plan_of(separate(3, 70, 64 * kKiB)).block_bytes(), Bytes(192 * kKiB));
}

TEST(StripePlan, RefusesWhatLeavesItsBuffer) {
  const auto result = [](auto change) {
    Geometry g = separate(2, 100, 64 * kKiB);
    change(g);
    StripePlan plan;
    return StripePlan::make(g.request(), plan);
  };
  EXPECT_EQ(result([](Geometry&) {}), Result::ok);
  EXPECT_EQ(result([](Geometry& g) { g.segments.clear(); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.blocks = 0; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.blocks = 101; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.blocks = ~0ULL; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[1].buffer = 2; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[1].offset = Bytes(1); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[1].offset = Bytes::max(); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[1].block_bytes = Bytes(); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[1].stride = Bytes(); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[1].stride = Bytes::max(); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.segments[0].block_bytes += Bytes(1); }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.pinned = {{99, 2}}; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.pinned = {{0, 0}}; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.pinned = {{5, 5}, {9, 1}}; }), Result::invalid);
  EXPECT_EQ(result([](Geometry& g) { g.pinned = {{1, ~0ULL}}; }), Result::invalid);
}

// Not a benchmark: a plan that looked at every block would take minutes.
TEST(StripePlan, DoesNotLookAtEveryBlock) {
  const Geometry g = in_one(512, 5'000'000, 132, 64);
  const StripePlan plan = plan_of(g);
  EXPECT_GT(plan.stripe_count(), 100U);
  EXPECT_EQ(plan.stripes().back().end(), g.blocks);
}

}  // namespace
}  // namespace kvcached::cache
