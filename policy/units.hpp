// Strong types for the quantities that must not be mixed up: bytes, pages, blocks.
#pragma once

#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>

namespace kvcached {

// A count of one kind of thing. Arithmetic stays within the kind; subtraction must not go below
// zero (callers that may overdraw use minus_clamped).
template <class Tag>
struct Quantity {
  std::uint64_t value = 0;

  constexpr Quantity() = default;
  constexpr explicit Quantity(std::uint64_t v) : value(v) {}

  // clang-tidy 14 takes the zero of the generated comparison for a null pointer.
  constexpr auto operator<=>(const Quantity&) const = default;  // NOLINT(modernize-use-nullptr)
  constexpr explicit operator bool() const { return value != 0; }
  constexpr Quantity operator+(Quantity o) const { return Quantity(value + o.value); }
  constexpr Quantity operator-(Quantity o) const { return Quantity(value - o.value); }
  constexpr Quantity operator*(std::uint64_t n) const { return Quantity(value * n); }
  constexpr std::uint64_t operator/(Quantity o) const { return value / o.value; }
  constexpr Quantity operator/(std::uint64_t n) const { return Quantity(value / n); }
  constexpr Quantity& operator+=(Quantity o) { return *this = *this + o; }
  constexpr Quantity& operator-=(Quantity o) { return *this = *this - o; }
  constexpr Quantity minus_clamped(Quantity o) const {
    return Quantity(value > o.value ? value - o.value : 0);
  }
  static constexpr Quantity max() { return Quantity(std::numeric_limits<std::uint64_t>::max()); }
};

using Bytes = Quantity<struct BytesTag>;
using Pages = Quantity<struct PagesTag>;
using Blocks = Quantity<struct BlocksTag>;

// The unit of accounting and the granularity of the driver's virtual memory calls.
inline constexpr Bytes kPageSize{2ULL << 20};

constexpr Pages pages_up(Bytes b) {
  return Pages(b.value / kPageSize.value + (b.value % kPageSize.value != 0 ? 1 : 0));
}
constexpr Pages pages_down(Bytes b) { return Pages(b.value / kPageSize.value); }
constexpr Bytes bytes_of(Pages p) { return Bytes(p.value * kPageSize.value); }

// The part of `whole` that falls to who has `own` of `all`, rounded up; never more than the whole.
inline Pages part_of(Pages whole, Pages own, Pages all) noexcept {
  if (own >= all) return whole;
  // As doubles: a damaged file's amounts multiply beyond 64 bits.
  const double product = static_cast<double>(whole.value) * static_cast<double>(own.value);
  const double part = std::ceil(product / static_cast<double>(all.value));
  return part < static_cast<double>(whole.value) ? Pages(static_cast<std::uint64_t>(part)) : whole;
}

}  // namespace kvcached
