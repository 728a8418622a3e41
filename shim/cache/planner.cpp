// Makes a StripePlan. In three steps: lanes (segments that lie interleaved are one), the edges of
// the stripes in blocks, and from these the pieces of each buffer.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <numeric>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "shim/cache/stripe_plan.hpp"

namespace kvcached::cache {

namespace {

constexpr std::uint64_t kPage = kPageSize.value;
constexpr std::size_t kMost = 1U << 24;      // stripes; intervals
constexpr std::uint64_t kShareOfPool = 100;  // a stripe is at most about 1/100 of the pool
constexpr Order kLargestExtent = 5;          // 64 MiB, when chosen from the pool
constexpr Order kLargestUnused = 4;          // 32 MiB: aliases where no block lies
constexpr std::uint64_t kSmallLane = 8;      // a lane with less than 1/8 of the largest stride

// Where blocks lie: [offset + b * stride, + span).
struct Lane {
  std::uint32_t buffer;
  std::uint64_t offset, stride, span;

  std::uint64_t begin(std::uint64_t block) const { return offset + block * stride; }
  std::uint64_t end(std::uint64_t block) const { return begin(block) + span; }
  // No page lies wholly between two blocks.
  bool dense() const { return stride - span < kPage; }
  // Memory that one more block takes.
  std::uint64_t per_block() const {
    return dense() ? stride : bytes_of(pages_up(Bytes(span))).value;
  }
};

// Pages [first, end) of a buffer, needed by a stripe.
struct Interval {
  std::uint32_t buffer, first, end, stripe;
};

bool fits(const Segment& segment, const PlanRequest& request) {
  if (segment.buffer >= request.buffers.size() || !segment.block_bytes ||
      segment.stride < segment.block_bytes) {
    return false;
  }
  const Bytes size = request.buffers[segment.buffer];
  if (segment.offset > size || segment.block_bytes > size - segment.offset) return false;
  const Bytes before_last = size - segment.offset - segment.block_bytes;
  return (request.blocks - 1) <= before_last.value / segment.stride.value;
}

std::vector<Lane> lanes_of(const PlanRequest& request) {
  std::vector<Lane> sorted;
  sorted.reserve(request.segments.size());
  for (const Segment& s : request.segments) {
    const std::uint64_t span = s.block_bytes.value;
    sorted.push_back({s.buffer, s.offset.value, request.blocks == 1 ? span : s.stride.value, span});
  }
  std::sort(sorted.begin(), sorted.end(), [](const Lane& a, const Lane& b) {
    return std::tie(a.buffer, a.stride, a.offset) < std::tie(b.buffer, b.stride, b.offset);
  });
  std::vector<Lane> lanes;
  for (const Lane& next : sorted) {
    if (!lanes.empty()) {
      // Interleaved with the lane before: the same stride, within it, and no page between.
      Lane& lane = lanes.back();
      const std::uint64_t span = next.offset - lane.offset + next.span;
      if (lane.buffer == next.buffer && lane.stride == next.stride && span <= lane.stride &&
          next.offset < lane.offset + lane.span + kPage) {
        lane.span = std::max(lane.span, span);
        continue;
      }
    }
    lanes.push_back(next);
  }
  return lanes;
}

// How many blocks make whole pages in all large lanes, where that is worth aligning to.
struct Quantum {
  std::uint64_t blocks;
  std::uint64_t pages;  // in the widest lane
};

std::optional<Quantum> quantum_of(std::span<const Lane> lanes, std::uint64_t widest, Order cap) {
  const std::uint64_t most = pages_of(cap).value;
  if (widest > most * kPage) return std::nullopt;
  const auto counts = [&](const Lane& lane) {
    return lane.dense() && lane.stride >= widest / kSmallLane;
  };
  std::uint64_t blocks = 1;
  for (const Lane& lane : lanes) {
    if (!counts(lane)) continue;
    if (lane.offset % kPage != 0) return std::nullopt;
    blocks = std::max(blocks, kPage / std::gcd(lane.stride, kPage));  // powers of two
  }
  if (blocks * widest / kPage > most) return std::nullopt;
  for (const Lane& lane : lanes) {
    // More than two extents a lane would cost more calls than a page at an edge does.
    if (counts(lane) && std::popcount(blocks * lane.stride / kPage) > 2) return std::nullopt;
  }
  return Quantum{blocks, blocks * widest / kPage};
}

Order extent_cap(const PlanRequest& request, std::span<const Lane> lanes, std::uint64_t widest) {
  if (request.extent_bytes)
    return std::min(kMaxOrder, order_within(pages_down(request.extent_bytes)));
  // An extent of the widest lane, and of the others in proportion.
  double extents = 0;
  for (const Lane& lane : lanes) {
    extents += static_cast<double>(lane.per_block()) / static_cast<double>(widest);
  }
  const double pages = static_cast<double>(request.pool.value) / kShareOfPool / extents;
  return std::min(kLargestExtent, order_within(Pages(static_cast<std::uint64_t>(pages))));
}

// Cuts the blocks into stripes: by extents of 2, 2, 4, 8, … MiB in the widest lane.
class StripeCutter {
 public:
  StripeCutter(const PlanRequest& request, std::uint64_t widest, std::optional<Quantum> quantum)
      : blocks_(request.blocks), pinned_(request.pinned), widest_(widest), quantum_(quantum) {}

  bool cut(Order cap, std::vector<BlockRange>& out) {
    Order order = 0;
    std::uint64_t at = 0;
    while (at < blocks_) {
      if (out.size() == kMost) return false;
      const std::uint64_t count = std::min(around_pinned(at, regular(at, order)), blocks_ - at);
      out.push_back({at, count});
      at += count;
      if (out.size() > 1 && order < cap) ++order;
    }
    return true;
  }

 private:
  std::uint64_t regular(std::uint64_t at, Order order) const {
    const std::uint64_t extent = pages_of(order).value;
    if (quantum_ && at % quantum_->blocks == 0 && quantum_->pages <= extent) {
      return quantum_->blocks * std::bit_floor(extent / quantum_->pages);
    }
    // Not on page edges: so much that between the two pages at the edges a whole extent fits.
    const std::uint64_t count = ((extent + 1) * kPage + widest_ - 1) / widest_;
    if (!quantum_) return count;
    const std::uint64_t to_edge = quantum_->blocks - at % quantum_->blocks;
    return to_edge <= count + count / 2 ? to_edge : count;
  }

  // Pinned blocks never leave: so that not much stays with them, they get a small stripe.
  std::uint64_t around_pinned(std::uint64_t at, std::uint64_t count) {
    while (!pinned_.empty() && pinned_.front().end() <= at) pinned_ = pinned_.subspan(1);
    if (pinned_.empty() || pinned_.front().first >= at + count) return count;
    const BlockRange& pinned = pinned_.front();
    const std::uint64_t unit = quantum_ ? quantum_->blocks : 1;
    const std::uint64_t before = pinned.first / unit * unit;
    if (before > at) return before - at;
    return std::min(count, std::max(regular(at, 0), pinned.end() - at));
  }

  const std::uint64_t blocks_;
  std::span<const BlockRange> pinned_;
  const std::uint64_t widest_;
  const std::optional<Quantum> quantum_;
};

bool add_intervals(const Lane& lane, const BlockRange& blocks, std::uint32_t stripe,
                   std::vector<Interval>& out) {
  const auto add = [&](std::uint64_t first, std::uint64_t last) {
    out.push_back({lane.buffer, static_cast<std::uint32_t>(lane.begin(first) / kPage),
                   static_cast<std::uint32_t>(pages_up(Bytes(lane.end(last))).value), stripe});
  };
  if (lane.dense()) {
    add(blocks.first, blocks.end() - 1);
  } else {
    if (blocks.count > kMost - std::min(kMost, out.size())) return false;
    for (std::uint64_t block = blocks.first; block < blocks.end(); ++block) add(block, block);
  }
  return out.size() <= kMost;
}

}  // namespace

class Planner {
 public:
  static Result plan(const PlanRequest& request, StripePlan& out) {
    if (request.segments.empty() || request.blocks == 0) return Result::invalid;
    for (const Segment& segment : request.segments) {
      if (!fits(segment, request)) return Result::invalid;
      out.block_bytes_ += segment.block_bytes;
    }
    std::uint64_t pinned_to = 0;
    for (const BlockRange& pinned : request.pinned) {
      if (pinned.first < pinned_to || pinned.first >= request.blocks || pinned.count == 0 ||
          pinned.count > request.blocks - pinned.first) {
        return Result::invalid;
      }
      pinned_to = pinned.end();
    }
    const std::vector<Lane> lanes = lanes_of(request);
    std::uint64_t widest = 0;  // bytes that one more block takes in the lane where it takes most
    for (const Lane& lane : lanes) widest = std::max(widest, lane.per_block());
    const Order cap = extent_cap(request, lanes, widest);
    StripeCutter cutter(request, widest, quantum_of(lanes, widest, cap));
    if (!cutter.cut(cap, out.stripes_)) return Result::invalid;
    std::vector<Interval> intervals;
    for (const Lane& lane : lanes) {
      for (std::uint32_t stripe = 0; stripe < out.stripes_.size(); ++stripe) {
        if (!add_intervals(lane, out.stripes_[stripe], stripe, intervals)) return Result::invalid;
      }
    }
    cut_pieces(request, intervals, cap, out);
    return Result::ok;
  }

 private:
  // Cuts every buffer wherever an interval begins or ends, and gives the pieces to their stripes.
  static void cut_pieces(const PlanRequest& request, std::vector<Interval>& intervals, Order cap,
                         StripePlan& out) {
    std::stable_sort(intervals.begin(), intervals.end(),
                     [](const Interval& a, const Interval& b) { return a.buffer < b.buffer; });
    std::vector<std::pair<std::uint32_t, PieceRange>> of_stripe;
    of_stripe.reserve(intervals.size());
    std::size_t from = 0;
    for (std::uint32_t buffer = 0; buffer < request.buffers.size(); ++buffer) {
      std::size_t to = from;
      while (to < intervals.size() && intervals[to].buffer == buffer) ++to;
      const std::span<const Interval> own(intervals.data() + from, to - from);
      const auto pages = static_cast<std::uint32_t>(pages_up(request.buffers[buffer]).value);
      std::vector<PageRun>& runs = out.partitions_.emplace_back();
      cut_buffer(own, pages, cap, runs);
      for (const Interval& interval : own) {
        const std::uint32_t first = piece_at(runs, interval.first);
        of_stripe.push_back(
            {interval.stripe, {buffer, first, piece_at(runs, interval.end) - first}});
      }
      from = to;
    }
    assign(of_stripe, out);
  }

  static void cut_buffer(std::span<const Interval> intervals, std::uint32_t pages, Order cap,
                         std::vector<PageRun>& runs) {
    // At each edge, how many intervals more begin than end.
    std::vector<std::pair<std::uint32_t, std::int32_t>> edges;
    edges.reserve(2 * intervals.size() + 2);
    for (const Interval& interval : intervals) {
      edges.emplace_back(interval.first, 1);
      edges.emplace_back(interval.end, -1);
    }
    edges.emplace_back(pages, 0);
    std::sort(edges.begin(), edges.end());
    std::uint32_t at = 0;
    std::int64_t needed = 0;
    for (const auto& [edge, change] : edges) {
      append_runs(at, edge - at, needed > 0 ? cap : std::max(cap, kLargestUnused), runs);
      at = edge;
      needed += change;
    }
  }

  static std::uint32_t piece_at(std::span<const PageRun> runs, std::uint32_t page) {
    const auto found = std::partition_point(runs.begin(), runs.end(),
                                            [&](const PageRun& run) { return run.end() <= page; });
    return static_cast<std::uint32_t>(found - runs.begin());
  }

  // Sorts by stripe and joins what overlaps or adjoins within one.
  static void assign(std::vector<std::pair<std::uint32_t, PieceRange>>& of_stripe,
                     StripePlan& out) {
    std::sort(of_stripe.begin(), of_stripe.end(), [](const auto& a, const auto& b) {
      if (a.first != b.first) return a.first < b.first;
      if (a.second.buffer != b.second.buffer) return a.second.buffer < b.second.buffer;
      return a.second.first < b.second.first;
    });
    out.piece_end_.resize(out.stripes_.size());
    std::size_t next = 0;
    for (std::size_t stripe = 0; stripe < out.stripes_.size(); ++stripe) {
      const std::size_t first = out.pieces_.size();
      for (; next < of_stripe.size() && of_stripe[next].first == stripe; ++next) {
        const PieceRange& range = of_stripe[next].second;
        if (out.pieces_.size() > first) {
          PieceRange& last = out.pieces_.back();
          if (last.buffer == range.buffer && range.first <= last.first + last.count) {
            const std::uint32_t end = std::max(last.first + last.count, range.first + range.count);
            last.count = end - last.first;
            continue;
          }
        }
        out.pieces_.push_back(range);
      }
      out.piece_end_[stripe] = static_cast<std::uint32_t>(out.pieces_.size());
    }
  }
};

Result StripePlan::make(const PlanRequest& request, StripePlan& out) noexcept {
  try {
    StripePlan plan;
    const Result result = Planner::plan(request, plan);
    if (result == Result::ok) out = std::move(plan);
    return result;
  } catch (const std::bad_alloc&) {
    return Result::failed;
  }
}

}  // namespace kvcached::cache
