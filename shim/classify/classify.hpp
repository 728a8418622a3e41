// What an allocation is: plain memory of the engine, or elastic by tag or by rule.
#pragma once

#include <cstdint>
#include <optional>

#include "policy/settings.hpp"
#include "policy/units.hpp"

namespace kvcached::classify {

enum class Kind : std::uint8_t {
  plain,      // the driver's own business
  tagged,     // elastic; somebody (an adapter, the API) will say what to back
  unclaimed,  // elastic by rule: a guess. Backed as a whole before any work runs, unless claimed
};

// Allocations below one page gain nothing and stay plain whatever the tags and the rule say.
// `on_stack(rule)` answers whether the caller is one that the rule names; it is dear, and asked
// last and only where the rule names one. `nth()` counts the allocations that met all else, this
// one included.
template <class OnStack, class Nth>
constexpr Kind decide(Bytes size, std::uint32_t tag_depth, const std::optional<MatchRule>& rule,
                      OnStack on_stack, Nth nth) noexcept {
  if (size < kPageSize) {
    return Kind::plain;
  }
  if (tag_depth != 0) {
    return Kind::tagged;
  }
  if (!rule || size < rule->at_least || size > rule->at_most ||
      (rule->by_caller() && !on_stack(*rule))) {
    return Kind::plain;
  }
  const std::uint64_t count = nth();
  return count >= rule->first && count <= rule->last ? Kind::unclaimed : Kind::plain;
}

}  // namespace kvcached::classify
