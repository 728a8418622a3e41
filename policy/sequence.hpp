// How long a request may be where there is less memory than the longest one takes. Pure.
#pragma once

#include <cstdint>

#include "policy/units.hpp"

namespace kvcached {

struct SequenceNeed {
  Bytes per_token;
  std::uint32_t longest = 0;  // tokens: what the model was made for
  std::uint32_t block_tokens = 1;
  // Of the caches that hold it; nothing while there is none.
  Pages least;   // what the longest request takes, with what is never given back
  Pages pinned;  // the latter alone
  Pages stripe;  // by which they grow
};

// Tokens of the longest request that fits into so many pages: whole blocks in whole stripes.
std::uint32_t fitting_tokens(const SequenceNeed& need, Pages pages) noexcept;

}  // namespace kvcached
