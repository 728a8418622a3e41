#include "policy/sequence.hpp"

#include <algorithm>

namespace kvcached {

std::uint32_t fitting_tokens(const SequenceNeed& need, Pages pages) noexcept {
  if (!need.per_token || (need.least && pages >= need.least)) return need.longest;
  const std::uint64_t stripe = std::max(need.stripe, Pages(1)).value;
  const Pages room(pages.minus_clamped(need.pinned).value / stripe * stripe);
  const std::uint64_t tokens = bytes_of(room).value / need.per_token.value;
  if (tokens >= need.longest) return need.longest;
  const auto some = static_cast<std::uint32_t>(tokens);
  return some - some % std::max(need.block_tokens, 1U);
}

}  // namespace kvcached
