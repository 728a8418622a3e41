// Which stripe to take from, to back and to let go next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "shim/cache/index_set.hpp"

namespace kvcached::cache {

// A stripe's place among the others. Not thread-safe; allocates only when constructed.
class StripeIndex {
 public:
  static constexpr std::size_t kNone = IndexSet::kNone;

  StripeIndex() = default;
  explicit StripeIndex(std::size_t stripes);

  // Where a stripe belongs now. A stripe is in one place at a time.
  void put_scratch(std::size_t stripe) noexcept { put(stripe, kScratch); }
  void put_vacant(std::size_t stripe) noexcept { put(stripe, kVacant); }
  void put_draining(std::size_t stripe) noexcept { put(stripe, kDraining); }
  // Partly live: `live` of `count` blocks, 0 < live < count.
  void put_partial(std::size_t stripe, std::uint64_t live, std::uint64_t count) noexcept;
  // Nothing to take, to back or to let go: full, in the worker's hands, or lost.
  void put_nowhere(std::size_t stripe) noexcept { put(stripe, kNowhere); }

  // The one to take blocks from: the fullest, to a 16th; then vacant ones; then draining ones.
  std::size_t to_acquire() const noexcept;
  // The one to back next: the lowest, because the first are small.
  std::size_t to_back() const noexcept { return sets_[kScratch].first(); }
  // The one to let go next: the highest, because the last are large.
  std::size_t to_drain() const noexcept { return sets_[kVacant].last(); }
  std::size_t first_vacant() const noexcept { return sets_[kVacant].first(); }
  std::size_t next_vacant(std::size_t stripe) const noexcept { return sets_[kVacant].next(stripe); }
  std::size_t to_undrain() const noexcept { return sets_[kDraining].first(); }
  std::size_t next_draining(std::size_t stripe) const noexcept {
    return sets_[kDraining].next(stripe);
  }

  std::size_t scratch() const noexcept { return sets_[kScratch].count(); }
  std::size_t draining() const noexcept { return sets_[kDraining].count(); }
  std::size_t vacant() const noexcept { return sets_[kVacant].count(); }

 private:
  static constexpr std::uint8_t kFullness = 16;  // sets 0 .. 15: partly live, by fullness
  static constexpr std::uint8_t kVacant = 16;
  static constexpr std::uint8_t kDraining = 17;
  static constexpr std::uint8_t kScratch = 18;
  static constexpr std::uint8_t kNowhere = 19;

  void put(std::size_t stripe, std::uint8_t place) noexcept;

  std::array<IndexSet, kNowhere> sets_;
  std::vector<std::uint8_t> place_;
};

}  // namespace kvcached::cache
