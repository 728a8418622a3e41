#include "policy/changes.hpp"

#include <algorithm>
#include <array>

namespace kvcached {
namespace {

constexpr std::uint64_t kMostMilliseconds = 3'600'000;

struct Key {
  std::string_view name;
  std::string_view allowed;
  bool (*set)(LimitChange&, std::string_view);  // false: bad value
  bool (*is_set)(const LimitChange&);
};

constexpr std::array<Key, 3> kKeys{{
    {"min", "0 or a size of at least 2MiB; write e.g. min=8GiB or min=40%",
     [](LimitChange& change, std::string_view value) {
       change.min = parse_pages(value);
       return change.min.has_value();
     },
     [](const LimitChange& change) { return change.min.has_value(); }},
    {"max", "a size of at least 2MiB; write e.g. max=8GiB or max=40%",
     [](LimitChange& change, std::string_view value) {
       change.max = parse_some_pages(value);
       return change.max.has_value();
     },
     [](const LimitChange& change) { return change.max.has_value(); }},
    {"weight", "a weight; write a whole number from 1 to 10000",
     [](LimitChange& change, std::string_view value) {
       change.weight = parse_weight(value);
       return change.weight.has_value();
     },
     [](const LimitChange& change) { return change.weight.has_value(); }},
}};

}  // namespace

std::string shown(std::string_view word, std::size_t most) {
  std::string text(word.substr(0, most));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return word.size() > most ? text + "..." : text;
}

std::string parse_changes(std::span<const std::string> words, LimitChange& change) {
  change = {};
  if (words.empty()) return "nothing to change; write min=SIZE, max=SIZE or weight=NUMBER";
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    const std::string_view name = std::string_view(word).substr(0, equals);
    const auto* const key =
        std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& one) { return one.name == name; });
    if (equals == std::string::npos || key == kKeys.end()) {
      return shown(word) + ": not a change; write min=SIZE, max=SIZE or weight=NUMBER";
    }
    if (key->is_set(change)) return shown(word) + ": " + std::string(key->name) + " is given twice";
    if (!key->set(change, std::string_view(word).substr(equals + 1))) {
      return shown(word) + ": not " + std::string(key->allowed);
    }
  }
  return {};
}

std::optional<Duration> parse_duration(std::string_view text) {
  if (text == "0") return Duration::zero();
  std::uint64_t unit = 0;  // in ms
  if (text.ends_with("ms")) {
    unit = 1;
    text.remove_suffix(2);
  } else if (text.ends_with("s")) {
    unit = 1000;
    text.remove_suffix(1);
  }
  const std::size_t point = std::min(text.find('.'), text.size());
  std::uint64_t whole = 0;
  std::uint64_t fraction = 0;  // of `scale`
  std::uint64_t scale = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i == point) continue;
    if (text[i] < '0' || text[i] > '9' || i > 9) return std::nullopt;
    std::uint64_t& part = i < point ? whole : fraction;
    part = part * 10 + static_cast<std::uint64_t>(text[i] - '0');
    if (i > point) scale *= 10;
  }
  const bool complete = unit != 0 && point != 0 && point + 1 != text.size();
  const std::uint64_t ms = whole * unit + fraction * unit / scale;
  if (!complete || ms > kMostMilliseconds) return std::nullopt;
  return std::chrono::milliseconds(ms);
}

}  // namespace kvcached
