#include "shim/cache/block_set.hpp"

#include <algorithm>
#include <bit>

namespace kvcached::cache {

namespace {
constexpr std::uint64_t kBits = 64;

// The bits of word number `word` that lie in the range. pre: the word begins before its end.
std::uint64_t mask(std::uint64_t word, BlockRange range) {
  const std::uint64_t start = word * kBits;
  const std::uint64_t from = range.first > start ? range.first - start : 0;
  const std::uint64_t to = std::min(kBits, range.end() - start);
  return from == to ? 0 : (~0ULL >> (kBits - (to - from))) << from;
}
}  // namespace

BlockSet::BlockSet(std::uint64_t size) : words_((size + kBits - 1) / kBits) {}

void BlockSet::insert(BlockRange range) noexcept {
  for (std::uint64_t word = range.first / kBits; word * kBits < range.end(); ++word) {
    words_[word] |= mask(word, range);
  }
}

void BlockSet::erase(BlockRange range) noexcept {
  for (std::uint64_t word = range.first / kBits; word * kBits < range.end(); ++word) {
    words_[word] &= ~mask(word, range);
  }
}

bool BlockSet::contains_all(BlockRange range) const noexcept {
  for (std::uint64_t word = range.first / kBits; word * kBits < range.end(); ++word) {
    const std::uint64_t wanted = mask(word, range);
    if ((words_[word] & wanted) != wanted) return false;
  }
  return true;
}

bool BlockSet::contains(std::uint64_t block) const noexcept { return contains_all({block, 1}); }

std::uint64_t BlockSet::find(bool live, BlockRange within) const noexcept {
  for (std::uint64_t word = within.first / kBits; word * kBits < within.end(); ++word) {
    const std::uint64_t found = (live ? words_[word] : ~words_[word]) & mask(word, within);
    if (found != 0) return word * kBits + static_cast<std::uint64_t>(std::countr_zero(found));
  }
  return within.end();
}

BlockRange BlockSet::first_gap(BlockRange within) const noexcept {
  if (within.count == 0) return {within.first, 0};
  const std::uint64_t from = find(false, within);
  if (from == within.end()) return {from, 0};
  return {from, find(true, {from, within.end() - from}) - from};
}

}  // namespace kvcached::cache
