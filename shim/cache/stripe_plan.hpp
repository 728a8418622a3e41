// How a cache is cut into stripes: pure arithmetic from its segments. A stripe is the same range of
// blocks in every segment.
//
// Stripes are small first and double up to a cap. Edges fall on page boundaries where the geometry
// allows it; where it does not, the page at the edge becomes a piece of its own that both stripes
// need, so that everything else comes and goes in large extents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy/units.hpp"
#include "shim/cache/page_runs.hpp"
#include "shim/cache/result.hpp"

namespace kvcached::cache {

struct BlockRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;

  constexpr std::uint64_t end() const { return first + count; }
  constexpr bool operator==(const BlockRange&) const = default;
};

// Block b lies at [offset + b * stride, + block_bytes) of buffer number `buffer`.
struct Segment {
  std::uint32_t buffer = 0;
  Bytes offset;
  Bytes stride;
  Bytes block_bytes;
};

// Consecutive pieces of one buffer.
struct PieceRange {
  std::uint32_t buffer = 0;
  std::uint32_t first = 0;
  std::uint32_t count = 0;

  constexpr bool operator==(const PieceRange&) const = default;
};

struct PlanRequest {
  std::span<const Segment> segments;
  std::span<const Bytes> buffers;  // usable bytes of each
  std::uint64_t blocks = 0;
  std::span<const BlockRange> pinned;  // in order, apart: they get small stripes
  Pages pool;                          // a stripe is at most about 1 % of it
  Bytes extent_bytes;                  // largest extent per segment; 0: 2 to 64 MiB, from the pool
};

class StripePlan {
 public:
  // invalid: no segments or blocks, pinned blocks out of range, a segment that leaves its buffer,
  // overlaps itself (a stride smaller than the block), or a geometry with more than 2^24 stripes or
  // edges.
  static Result make(const PlanRequest& request, StripePlan& out) noexcept;

  std::size_t stripe_count() const noexcept { return stripes_.size(); }
  const BlockRange& stripe(std::size_t index) const noexcept { return stripes_[index]; }
  std::span<const BlockRange> stripes() const noexcept { return stripes_; }
  std::size_t stripe_of(std::uint64_t block) const noexcept;

  // The pieces that hold the blocks of a stripe, each once, in order.
  std::span<const PieceRange> pieces(std::size_t stripe) const noexcept;
  // All pieces of a buffer: a partition of its pages.
  std::span<const PageRun> partition(std::size_t buffer) const noexcept {
    return partitions_[buffer];
  }
  std::size_t buffer_count() const noexcept { return partitions_.size(); }
  // Pages of all pieces of a stripe, shared ones included.
  Pages pages(std::size_t stripe) const noexcept;
  // Of all segments together.
  Bytes block_bytes() const noexcept { return block_bytes_; }

 private:
  friend class Planner;
  std::vector<BlockRange> stripes_;
  std::vector<std::vector<PageRun>> partitions_;
  std::vector<PieceRange> pieces_;        // by stripe
  std::vector<std::uint32_t> piece_end_;  // of stripe i in pieces_
  Bytes block_bytes_;
};

}  // namespace kvcached::cache
