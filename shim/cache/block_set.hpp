// Which blocks of a cache are live: one bit a block, worked on by ranges.
#pragma once

#include <cstdint>
#include <vector>

#include "shim/cache/stripe_plan.hpp"

namespace kvcached::cache {

// Allocates only when constructed. Ranges must lie within the size; empty ones
// are in every set. Not thread-safe.
class BlockSet {
 public:
  BlockSet() = default;
  explicit BlockSet(std::uint64_t size);

  void insert(BlockRange range) noexcept;
  void erase(BlockRange range) noexcept;
  bool contains_all(BlockRange range) const noexcept;
  bool contains(std::uint64_t block) const noexcept;

  // The first run of blocks not in the set within `within`; empty (count 0) when there is none.
  BlockRange first_gap(BlockRange within) const noexcept;

 private:
  // The first block of `within` that is, or is not, in the set; its end when there is none.
  std::uint64_t find(bool live, BlockRange within) const noexcept;

  std::vector<std::uint64_t> words_;
};

}  // namespace kvcached::cache
