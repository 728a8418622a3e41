// Sizes and shares as users write them. Integer arithmetic throughout: no locale, no
// rounding surprises, no NaN.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "policy/settings.hpp"

namespace kvcached {
namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kFractionDigits = 6;

struct Unit {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array<Unit, 10> kUnits{{{"", 1},
                                       {"B", 1},
                                       {"KiB", 1ULL << 10},
                                       {"MiB", 1ULL << 20},
                                       {"GiB", 1ULL << 30},
                                       {"TiB", 1ULL << 40},
                                       {"KB", 1'000},
                                       {"MB", 1'000'000},
                                       {"GB", 1'000'000'000},
                                       {"TB", 1'000'000'000'000}}};

struct Number {
  std::uint64_t whole = 0;
  std::uint64_t fraction = 0;  // of `scale`
  std::uint64_t scale = 1;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Takes digits from the front of `text`; false when there are none or too many.
bool take_digits(std::string_view& text, std::size_t most, std::uint64_t& value,
                 std::uint64_t& scale) {
  const std::size_t begin = text.size();
  while (!text.empty() && is_digit(text.front())) {
    const auto digit = static_cast<std::uint64_t>(text.front() - '0');
    if (value > (kMost - digit) / 10 || begin - text.size() == most) return false;
    value = value * 10 + digit;
    scale *= 10;
    text.remove_prefix(1);
  }
  return text.size() < begin;
}

// Takes "12" or "12.5" from the front.
bool take_number(std::string_view& text, Number& number) {
  std::uint64_t unused = 1;
  if (!take_digits(text, 20, number.whole, unused)) return false;
  if (text.empty() || text.front() != '.') return true;
  text.remove_prefix(1);
  return take_digits(text, kFractionDigits, number.fraction, number.scale);
}

std::optional<Bytes> amount(const Number& number, std::string_view unit) {
  const auto* const found =
      std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return u.name == unit; });
  if (found == kUnits.end()) return std::nullopt;
  if (found->bytes == 1 && number.scale != 1) return std::nullopt;  // half a byte
  // At most 2^40 units of 10^-6, so the fraction cannot overflow.
  const std::uint64_t part = number.fraction * found->bytes / number.scale;
  if (number.whole > (kMost - part) / found->bytes) return std::nullopt;
  return Bytes(number.whole * found->bytes + part);
}

}  // namespace

Bytes Size::of(Bytes total) const {
  if (!is_share) return bytes;
  if (share >= 1) return total;
  return Bytes(static_cast<std::uint64_t>(std::floor(static_cast<double>(total.value) * share)));
}

std::optional<Size> parse_size(std::string_view text) {
  Number number;
  if (!take_number(text, number)) return std::nullopt;
  if (text == "%") {
    const double percent = static_cast<double>(number.whole) +
                           static_cast<double>(number.fraction) / static_cast<double>(number.scale);
    if (percent > 100) return std::nullopt;
    return Size{Bytes{}, percent / 100, true};
  }
  const std::optional<Bytes> bytes = amount(number, text);
  if (!bytes) return std::nullopt;
  return Size{*bytes, 0, false};
}

std::optional<Size> parse_pages(std::string_view text) {
  const std::optional<Size> size = parse_size(text);
  const bool part = size && !size->is_share && size->bytes && size->bytes < kPageSize;
  return part ? std::nullopt : size;
}

std::optional<Size> parse_some_pages(std::string_view text) {
  const std::optional<Size> size = parse_pages(text);
  const bool none = size && !size->bytes && size->share <= 0;
  return none ? std::nullopt : size;
}

std::optional<std::uint32_t> parse_weight(std::string_view text) {
  const std::optional<Size> number = parse_size(text);
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos || !number ||
      !number->bytes || number->bytes.value > 10'000) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(number->bytes.value);
}

}  // namespace kvcached
