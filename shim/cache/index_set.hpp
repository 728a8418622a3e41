// A set of small numbers with first() and last() in a few steps: a bitmap under bitmaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvcached::cache {

// Allocates only when constructed. Not thread-safe.
class IndexSet {
 public:
  static constexpr std::size_t kNone = ~std::size_t{0};

  IndexSet() = default;
  // Numbers 0 .. size - 1, none of them in it.
  explicit IndexSet(std::size_t size);

  void insert(std::size_t index) noexcept;
  void erase(std::size_t index) noexcept;
  bool contains(std::size_t index) const noexcept;
  bool empty() const noexcept { return count_ == 0; }
  std::size_t count() const noexcept { return count_; }
  std::size_t first() const noexcept;  // kNone when empty
  std::size_t last() const noexcept;   // kNone when empty
  // The smallest above `index`; kNone when there is none.
  std::size_t next(std::size_t index) const noexcept;

 private:
  std::vector<std::vector<std::uint64_t>> levels_;  // levels_[0]: the numbers themselves
  std::size_t count_ = 0;
};

}  // namespace kvcached::cache
