#include "shim/cache/stripe_plan.hpp"

#include <algorithm>

namespace kvcached::cache {

std::size_t StripePlan::stripe_of(std::uint64_t block) const noexcept {
  const auto after =
      std::partition_point(stripes_.begin(), stripes_.end(),
                           [&](const BlockRange& stripe) { return stripe.end() <= block; });
  return static_cast<std::size_t>(after - stripes_.begin());
}

std::span<const PieceRange> StripePlan::pieces(std::size_t stripe) const noexcept {
  const std::size_t first = stripe == 0 ? 0 : piece_end_[stripe - 1];
  return std::span(pieces_).subspan(first, piece_end_[stripe] - first);
}

Pages StripePlan::pages(std::size_t stripe) const noexcept {
  Pages sum;
  for (const PieceRange& range : pieces(stripe)) {
    const std::span<const PageRun> runs = partition(range.buffer);
    sum += Pages(runs[range.first + range.count - 1].end() - runs[range.first].first);
  }
  return sum;
}

}  // namespace kvcached::cache
