// What an allocation is: plain memory of the engine, or elastic by tag or by rule. Pure.
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
constexpr Kind decide(Bytes size, std::uint32_t tag_depth,
                      const std::optional<MatchRule>& rule) noexcept {
  if (size < kPageSize) {
    return Kind::plain;
  }
  if (tag_depth != 0) {
    return Kind::tagged;
  }
  const bool matches = rule && size >= rule->at_least && size <= rule->at_most;
  return matches ? Kind::unclaimed : Kind::plain;
}

}  // namespace kvcached::classify
