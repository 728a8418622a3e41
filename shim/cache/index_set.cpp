#include "shim/cache/index_set.hpp"

#include <bit>

namespace kvcached::cache {

namespace {
constexpr std::size_t kBits = 64;
constexpr std::uint64_t bit(std::size_t index) { return 1ULL << (index % kBits); }
}  // namespace

IndexSet::IndexSet(std::size_t size) {
  do {
    size = (size + kBits - 1) / kBits;
    levels_.emplace_back(size);
  } while (size > 1);
}

void IndexSet::insert(std::size_t index) noexcept {
  if (contains(index)) return;
  ++count_;
  for (auto& level : levels_) {
    level[index / kBits] |= bit(index);
    index /= kBits;
  }
}

void IndexSet::erase(std::size_t index) noexcept {
  if (!contains(index)) return;
  --count_;
  for (auto& level : levels_) {
    level[index / kBits] &= ~bit(index);
    if (level[index / kBits] != 0) return;
    index /= kBits;
  }
}

bool IndexSet::contains(std::size_t index) const noexcept {
  return (levels_[0][index / kBits] & bit(index)) != 0;
}

std::size_t IndexSet::first() const noexcept {
  if (empty()) return kNone;
  std::size_t index = 0;
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
    index = index * kBits + static_cast<std::size_t>(std::countr_zero((*level)[index]));
  }
  return index;
}

std::size_t IndexSet::last() const noexcept {
  if (empty()) return kNone;
  std::size_t index = 0;
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
    index = index * kBits + static_cast<std::size_t>(std::bit_width((*level)[index]) - 1);
  }
  return index;
}

std::size_t IndexSet::next(std::size_t index) const noexcept {
  // Up until a level has something to the right, then down to its first.
  for (std::size_t level = 0; level < levels_.size(); ++level) {
    const std::uint64_t word = levels_[level][index / kBits];
    const std::uint64_t right = word & ~(bit(index) | (bit(index) - 1));
    if (right != 0) {
      index = index / kBits * kBits + static_cast<std::size_t>(std::countr_zero(right));
      while (level-- > 0) {
        index = index * kBits + static_cast<std::size_t>(std::countr_zero(levels_[level][index]));
      }
      return index;
    }
    index /= kBits;
  }
  return kNone;
}

}  // namespace kvcached::cache
