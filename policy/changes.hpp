// What users change in a pool that is in use, and how they write it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "policy/clock.hpp"
#include "policy/settings.hpp"

namespace kvcached {

// A tenant's limits: those that have a value change. Shares are of the pool.
struct LimitChange {
  std::optional<Size> min;
  std::optional<Size> max;
  std::optional<std::uint32_t> weight;
};

// Reads words like "min=2GiB", "max=40%", "weight=300": at least one, each key once. Answers an
// empty text and sets `change`, or one line that names the word and what is allowed; then `change`
// is unspecified.
std::string parse_changes(std::span<const std::string> words, LimitChange& change);

// Reads "2s", "0.5s", "1500ms", "0"; at most an hour. None on bad input.
std::optional<Duration> parse_duration(std::string_view text);

// A word of the user's, such that it fits into a line: cut, and without control characters.
inline constexpr std::size_t kShownWord = 64;
std::string shown(std::string_view word, std::size_t most = kShownWord);

}  // namespace kvcached
