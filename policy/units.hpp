// Strong types for the quantities that must not be mixed up: bytes, pages, blocks.
#pragma once

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

}  // namespace kvcached
