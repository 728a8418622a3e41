// Caches through the public interface: blocks, stripes, waiting, and the model's shape.
#include <atomic>
#include <set>

#include "tests/api/gpu.hpp"

namespace kvcached::test {
namespace {

class Caches : public Gpu {
 protected:
  static constexpr std::uint64_t kBlockBytes = 64 << 10;
  static constexpr std::uint64_t kBlocks = 4096;

  // `layers` allocations of kBlocks blocks, one segment each.
  kvcached_cache* make(std::size_t layers, std::uint64_t pinned = 0,
                       std::uint64_t blocks = kBlocks) {
    segments_.clear();
    for (std::size_t i = 0; i < layers; ++i)
      segments_.push_back({elastic(blocks * kBlockBytes), kBlockBytes, kBlockBytes});
    const kvcached_range pin{0, pinned};
    kvcached_geometry g{};
    g.struct_size = sizeof g;
    g.segments = segments_.data();
    g.segment_count = segments_.size();
    g.blocks = blocks;
    g.pinned = pinned != 0 ? &pin : nullptr;
    g.pinned_count = pinned != 0 ? 1 : 0;
    kvcached_cache* cache = nullptr;
    EXPECT_EQ(kvcached_cache_create(&g, &cache), KVCACHED_OK);
    return cache;
  }
  static std::vector<kvcached_range> acquire(kvcached_cache* cache, std::uint64_t blocks,
                                             std::int64_t wait_ms, int expected,
                                             unsigned flags = 0) {
    std::vector<kvcached_range> ranges(1024);
    std::size_t count = ranges.size();
    EXPECT_EQ(kvcached_cache_acquire(cache, blocks, flags, wait_ms, ranges.data(), &count),
              expected);
    ranges.resize(count);
    return ranges;
  }
  static std::uint64_t total(const std::vector<kvcached_range>& ranges) {
    std::uint64_t n = 0;
    for (const auto& r : ranges) n += r.count;
    return n;
  }
  static kvcached_cache_info describe(kvcached_cache* cache) {
    kvcached_cache_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(kvcached_cache_describe(cache, &info), KVCACHED_OK);
    return info;
  }
  std::vector<kvcached_segment> segments_;
};

TEST_F(Caches, BlocksAreBackedDistinctAndKeepWhatIsWritten) {
  kvcached_cache* cache = make(4);
  const auto ranges = acquire(cache, 500, 2000, KVCACHED_OK);
  ASSERT_EQ(total(ranges), 500U);
  std::set<std::uint64_t> seen;
  for (const auto& r : ranges)
    for (std::uint64_t b = r.first; b < r.first + r.count; ++b) {
      ASSERT_LT(b, kBlocks);
      ASSERT_TRUE(seen.insert(b).second) << "block " << b << " twice";
    }
  for (std::size_t s = 0; s < segments_.size(); ++s)
    for (const std::uint64_t b : seen)
      fill(segments_[s].base + b * kBlockBytes, kBlockBytes,
           static_cast<unsigned char>(b * 7 + s * 31 + 1));
  for (std::size_t s = 0; s < segments_.size(); ++s)
    for (const std::uint64_t b : seen)
      ASSERT_TRUE(holds(segments_[s].base + b * kBlockBytes, kBlockBytes,
                        static_cast<unsigned char>(b * 7 + s * 31 + 1)))
          << "segment " << s << " block " << b;
  EXPECT_EQ(describe(cache).live, 500U);
  EXPECT_GE(describe(cache).backed_bytes, 500 * 4 * kBlockBytes);
  EXPECT_EQ(kvcached_cache_release(cache, ranges.data(), ranges.size()), KVCACHED_OK);
  EXPECT_EQ(describe(cache).live, 0U);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, ReleasingWhatIsNotLiveIsRefused) {
  kvcached_cache* cache = make(2);
  const auto ranges = acquire(cache, 10, 2000, KVCACHED_OK);
  ASSERT_FALSE(ranges.empty());
  ASSERT_EQ(kvcached_cache_release(cache, ranges.data(), ranges.size()), KVCACHED_OK);
  EXPECT_EQ(kvcached_cache_release(cache, ranges.data(), ranges.size()), KVCACHED_INVALID);
  const kvcached_range outside{kBlocks - 1, 2};
  EXPECT_EQ(kvcached_cache_release(cache, &outside, 1), KVCACHED_INVALID);
  const kvcached_range overflow{UINT64_MAX, 2};
  EXPECT_EQ(kvcached_cache_release(cache, &overflow, 1), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, IdleMemoryGoesBack) {
  // On a large GPU at least 192 MiB stay warm, by whole stripes of up to 64 MiB a segment.
  kvcached_cache* cache = make(3);
  const auto ranges = acquire(cache, kBlocks, 5000, KVCACHED_OK);
  const auto full = describe(cache).backed_bytes;
  ASSERT_EQ(kvcached_cache_release(cache, ranges.data(), ranges.size()), KVCACHED_OK);
  EXPECT_TRUE(eventually([&] { return describe(cache).backed_bytes < full * 2 / 3; }));
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, ExpectMakesBlocksReadyAhead) {
  kvcached_cache* cache = make(2);
  ASSERT_EQ(kvcached_cache_expect(cache, 300), KVCACHED_OK);
  EXPECT_TRUE(eventually([&] { return kvcached_cache_available(cache) >= 300; }));
  EXPECT_EQ(total(acquire(cache, 300, 0, KVCACHED_OK)), 300U) << "ready blocks need no wait";
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, WithoutWaitingWhatIsReadyComesAndTheRestFollows) {
  kvcached_cache* cache = make(2);
  const auto now = acquire(cache, 1000, 0, KVCACHED_SHORT);
  EXPECT_LT(total(now), 1000U);
  EXPECT_TRUE(eventually([&] { return kvcached_cache_available(cache) + total(now) >= 1000; }));
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, WholeStripesComeWhole) {
  kvcached_cache* cache = make(4, 1);
  std::size_t count = 0;
  ASSERT_EQ(kvcached_cache_stripes(cache, nullptr, &count), KVCACHED_OK);
  std::vector<kvcached_range> stripes(count);
  ASSERT_EQ(kvcached_cache_stripes(cache, stripes.data(), &count), KVCACHED_OK);
  std::uint64_t next = 0;
  for (const auto& s : stripes) {
    EXPECT_EQ(s.first, next) << "stripes do not follow each other";
    next = s.first + s.count;
  }
  EXPECT_EQ(next, kBlocks);
  const auto got = acquire(cache, 200, 2000, KVCACHED_OK, KVCACHED_WHOLE_STRIPES);
  EXPECT_GE(total(got), 200U);
  // Every stripe touched is taken to its end, pinned block 0 aside.
  std::set<std::uint64_t> mine;
  for (const auto& r : got)
    for (std::uint64_t b = r.first; b < r.first + r.count; ++b) mine.insert(b);
  EXPECT_EQ(mine.count(0), 0U) << "a pinned block was handed out";
  for (const auto& s : stripes) {
    std::uint64_t inside = 0, own = 0;
    for (std::uint64_t b = s.first; b < s.first + s.count; ++b) {
      if (b == 0) continue;
      ++inside;
      own += mine.count(b);
    }
    EXPECT_TRUE(own == 0 || own == inside) << "stripe at " << s.first << " came in part";
  }
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, NamedBlocksComeAllOrNone) {
  kvcached_cache* cache = make(4, 1);
  std::size_t count = 64;
  std::vector<kvcached_range> stripes(count);
  ASSERT_EQ(kvcached_cache_stripes(cache, stripes.data(), &count), KVCACHED_OK);
  ASSERT_GT(count, 6U);
  const std::vector<kvcached_range> named = {stripes[5], stripes[2]};
  EXPECT_EQ(kvcached_cache_acquire_ranges(cache, named.data(), 2, 0), KVCACHED_SHORT)
      << "ready before anybody asked";
  EXPECT_EQ(describe(cache).live, 1U);
  ASSERT_EQ(kvcached_cache_acquire_ranges(cache, named.data(), 2, 2000), KVCACHED_OK);
  EXPECT_EQ(describe(cache).live, 1 + named[0].count + named[1].count);
  for (const auto& segment : segments_)
    for (const auto& range : named) {
      const std::size_t size = range.count * kBlockBytes;
      EXPECT_EQ(resident(segment.base, range.first * kBlockBytes, size), size);
      fill(segment.base + range.first * kBlockBytes, size, 0x37);
      EXPECT_TRUE(holds(segment.base + range.first * kBlockBytes, size, 0x37));
    }
  const std::vector<kvcached_range> mixed = {stripes[1], stripes[2]};
  EXPECT_EQ(kvcached_cache_acquire_ranges(cache, mixed.data(), 2, 2000), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_cache_acquire_ranges(cache, stripes.data(), 1, 2000), KVCACHED_INVALID)
      << "block 0 is pinned";
  EXPECT_EQ(kvcached_cache_acquire_ranges(cache, nullptr, 1, 0), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_cache_acquire_ranges(nullptr, named.data(), 2, 0), KVCACHED_INVALID);
  EXPECT_EQ(describe(cache).live, 1 + named[0].count + named[1].count);
  EXPECT_EQ(kvcached_cache_release(cache, named.data(), 2), KVCACHED_OK);
  free_now(segments_[0].base);
  EXPECT_EQ(kvcached_cache_acquire_ranges(cache, named.data(), 2, 0), KVCACHED_LOST);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, PinnedBlocksAreBackedAndCannotBeReleased) {
  kvcached_cache* cache = make(2, 3);
  for (const auto& s : segments_) {
    fill(s.base, 3 * kBlockBytes, 0x42);
    EXPECT_TRUE(holds(s.base, 3 * kBlockBytes, 0x42));
  }
  EXPECT_EQ(describe(cache).live, 3U);
  const kvcached_range pinned{0, 1};
  EXPECT_EQ(kvcached_cache_release(cache, &pinned, 1), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, FreeingAnAllocationEndsItsCache) {
  kvcached_cache* cache = make(2);
  ASSERT_EQ(total(acquire(cache, 10, 2000, KVCACHED_OK)), 10U);
  free_now(segments_[0].base);
  std::size_t none = 0;
  EXPECT_EQ(kvcached_cache_acquire(cache, 1, 0, 0, nullptr, &none), KVCACHED_LOST);
  EXPECT_EQ(kvcached_cache_available(cache), 0U);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, AListThatNoMemoryCanHoldIsAFailureAndNoEnd) {
  kvcached_cache* cache = make(1);
  kvcached_range range{};
  std::size_t count = SIZE_MAX;
  EXPECT_EQ(kvcached_cache_acquire(cache, 1, 0, 0, &range, &count), KVCACHED_FAILED);
  EXPECT_EQ(count, 0U);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

TEST_F(Caches, BadGeometryIsRefused) {
  const CUdeviceptr p = elastic(64 * kMiB);
  kvcached_segment segment{p, kBlockBytes, kBlockBytes};
  kvcached_geometry g{};
  g.struct_size = sizeof g;
  g.segments = &segment;
  g.segment_count = 1;
  g.blocks = 64 * kMiB / kBlockBytes + 1;  // one too many
  kvcached_cache* cache = nullptr;
  EXPECT_EQ(kvcached_cache_create(&g, &cache), KVCACHED_INVALID);
  g.blocks = 8;
  segment.stride = 0;
  EXPECT_EQ(kvcached_cache_create(&g, &cache), KVCACHED_INVALID);
  segment.stride = kBlockBytes;
  segment.base = plain(64 * kMiB);
  EXPECT_EQ(kvcached_cache_create(&g, &cache), KVCACHED_NOT_ELASTIC);
  g.struct_size = 3;
  EXPECT_EQ(kvcached_cache_create(&g, &cache), KVCACHED_INVALID);
  EXPECT_EQ(cache, nullptr);
  EXPECT_EQ(kvcached_cache_destroy(nullptr), KVCACHED_INVALID);
}

TEST_F(Caches, AnAllocationServesOneCacheOnly) {
  kvcached_cache* cache = make(1);
  kvcached_geometry g{};
  g.struct_size = sizeof g;
  g.segments = segments_.data();
  g.segment_count = 1;
  g.blocks = kBlocks;
  kvcached_cache* second = nullptr;
  EXPECT_EQ(kvcached_cache_create(&g, &second), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_grow(segments_[0].base, 0, kMiB, 0), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_cache_destroy(cache), KVCACHED_OK);
}

// Told of a length only when it changes, and of none that is not there.
TEST_F(Caches, ModelLengthIsToldWhileThereIsAListener) {
  static std::atomic<std::uint32_t> told;
  told = 0;
  ASSERT_EQ(
      kvcached_model_on_max_seq_len([](std::uint32_t tokens, void*) { told = tokens; }, nullptr),
      KVCACHED_OK);
  kvcached_model model{sizeof model, "huge", 40, 40, 128, 2, 1U << 30, 16, 0};
  ASSERT_EQ(kvcached_model_register(&model, nullptr), KVCACHED_OK);
  ASSERT_TRUE(eventually([&] { return told != 0; }));
  EXPECT_LT(told, 1U << 30);
  EXPECT_EQ(told, kvcached_model_max_seq_len());
  ASSERT_EQ(kvcached_model_on_max_seq_len(nullptr, nullptr), KVCACHED_OK);
  told = 0;
  model.max_seq_len = 1U << 29;
  ASSERT_EQ(kvcached_model_register(&model, nullptr), KVCACHED_OK);
  usleep(300'000);
  EXPECT_EQ(told, 0U);
}

// The function asks, registers another model, then another function, which ends it all.
TEST_F(Caches, WhoIsToldOfTheModelLengthMayMakeTheseCalls) {
  static std::atomic<std::uint32_t> asked;
  static std::atomic<int> calls;
  asked = 0;
  calls = 0;
  const auto last = [](std::uint32_t tokens, void*) {
    EXPECT_NE(tokens, 0U);
    EXPECT_EQ(kvcached_model_on_max_seq_len(nullptr, nullptr), KVCACHED_OK);
    calls += 10;
  };
  static kvcached_max_seq_len_function next;
  next = last;
  const auto first = [](std::uint32_t tokens, void*) {
    asked = kvcached_model_max_seq_len();
    EXPECT_EQ(asked, tokens);
    const kvcached_model other{sizeof other, "huger", 40, 40, 128, 2, 1U << 31, 16, 0};
    EXPECT_EQ(kvcached_model_register(&other, nullptr), KVCACHED_OK);
    EXPECT_EQ(kvcached_model_on_max_seq_len(next, nullptr), KVCACHED_OK);
    ++calls;
  };
  kvcached_model model{sizeof model, "huge", 40, 40, 128, 2, 1U << 30, 16, 0};
  ASSERT_EQ(kvcached_model_register(&model, nullptr), KVCACHED_OK);
  ASSERT_EQ(kvcached_model_on_max_seq_len(first, nullptr), KVCACHED_OK);
  EXPECT_TRUE(eventually([&] { return calls == 11; })) << calls;
  EXPECT_NE(asked, 0U);
  // The agent lives on.
  ASSERT_EQ(kvcached_model_on_max_seq_len(first, nullptr), KVCACHED_OK);
  EXPECT_TRUE(eventually([&] { return calls == 22; })) << calls;
}

TEST_F(Caches, ModelShapeGivesTokens) {
  kvcached_model model{};
  model.struct_size = sizeof model;
  model.name = "test-13b";
  model.layers = 40;
  model.kv_heads = 40;
  model.head_dim = 128;
  model.bytes_per_element = 2;
  model.max_seq_len = 4096;
  model.block_tokens = 16;
  kvcached_model_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(kvcached_model_register(&model, &info), KVCACHED_OK);
  EXPECT_EQ(info.bytes_per_token, 2ULL * 40 * 40 * 128 * 2);
  EXPECT_GT(info.capacity_tokens, 0U);
  EXPECT_EQ(info.guaranteed_tokens, 0U);
  EXPECT_EQ(kvcached_model_max_seq_len(),
            std::min<std::uint64_t>(info.capacity_tokens, 4096) / 16 * 16);
  model.bytes_per_token = 1000;
  ASSERT_EQ(kvcached_model_register(&model, &info), KVCACHED_OK);
  EXPECT_EQ(info.bytes_per_token, 1000U);
  model.struct_size = offsetof(kvcached_model, bytes_per_token);  // as the first version ended
  ASSERT_EQ(kvcached_model_register(&model, &info), KVCACHED_OK);
  EXPECT_EQ(info.bytes_per_token, 2ULL * 40 * 40 * 128 * 2);
  --model.struct_size;
  EXPECT_EQ(kvcached_model_register(&model, &info), KVCACHED_INVALID);
  model.struct_size = sizeof model;
  model.layers = 0;
  EXPECT_EQ(kvcached_model_register(&model, &info), KVCACHED_INVALID);
  EXPECT_EQ(kvcached_model_register(nullptr, nullptr), KVCACHED_INVALID);
}

}  // namespace
}  // namespace kvcached::test
