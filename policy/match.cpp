// The rule by which allocations are elastic without a tag, as users write it.
#include <algorithm>
#include <charconv>
#include <limits>

#include "policy/settings.hpp"

namespace kvcached {
namespace {

constexpr std::size_t kLongestPattern = 200;
constexpr auto kNoLast = std::numeric_limits<std::uint64_t>::max();

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::optional<Bytes> parse_amount(std::string_view text) {
  const std::optional<Size> size = parse_size(text);
  if (!size || size->is_share) return std::nullopt;
  return size->bytes;
}

bool set_pattern(std::string& target, std::string_view text, std::string_view never) {
  const auto bad = [&](char c) {
    return c <= ' ' || c > '~' || never.find(c) != std::string_view::npos;
  };
  if (!target.empty() || text.empty() || text.size() > kLongestPattern ||
      std::any_of(text.begin(), text.end(), bad)) {
    return false;
  }
  target = text;
  return true;
}

// A whole number from 1.
bool set_count(std::uint64_t& target, std::uint64_t unset, std::string_view text) {
  if (target != unset) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), target);
  return error == std::errc() && end == text.data() + text.size() && target != 0;
}

// Each bound and each pattern may be given once.
bool add_condition(MatchRule& rule, std::string_view text) {
  if (take_prefix(text, "size>=")) {
    const std::optional<Bytes> least = parse_amount(text);
    if (!least || !*least || rule.at_least) return false;
    rule.at_least = *least;
    return true;
  }
  if (take_prefix(text, "size<=")) {
    const std::optional<Bytes> most = parse_amount(text);
    if (!most || rule.at_most != Bytes::max()) return false;
    rule.at_most = *most;
    return true;
  }
  if (take_prefix(text, "count>=")) return set_count(rule.first, 1, text);
  if (take_prefix(text, "count<=")) return set_count(rule.last, kNoLast, text);
  // A module goes by the name of its file: a pattern with a folder would never match.
  if (take_prefix(text, "module=")) return set_pattern(rule.module, text, "/");
  return take_prefix(text, "symbol=") && set_pattern(rule.symbol, text, "");
}

}  // namespace

std::optional<MatchRule> parse_match(std::string_view text) {
  MatchRule rule;
  for (;;) {
    const std::size_t comma = std::min(text.find(','), text.size());
    if (!add_condition(rule, text.substr(0, comma))) return std::nullopt;
    if (comma == text.size()) break;
    text.remove_prefix(comma + 1);
  }
  // An upper bound alone would say that all but the largest are a cache.
  if (!rule.at_least && !rule.by_caller()) return std::nullopt;
  if (rule.at_most < rule.at_least || !rule.at_most || rule.last < rule.first) return std::nullopt;
  return rule;
}

bool glob_matches(std::string_view pattern, std::string_view text) noexcept {
  // Where to go on when what follows the last star does not fit: one character further.
  std::size_t star = std::string_view::npos;
  std::size_t resume = 0;
  std::size_t p = 0;
  std::size_t t = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace kvcached
