// Runs of pages whose length is a power of two: the sizes in which everything is mapped, because a
// mapping is all or nothing and each size needs one scratch extent.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "policy/units.hpp"

namespace kvcached::cache {

using Order = std::uint8_t;  // a run of order n is 2^n pages long

inline constexpr Order kMaxOrder = 7;  // 256 MiB

constexpr Pages pages_of(Order order) { return Pages(1ULL << order); }

// The largest order whose run fits in `pages`; 0 for none.
constexpr Order order_within(Pages pages) {
  return pages.value == 0 ? Order{0} : static_cast<Order>(std::bit_width(pages.value) - 1);
}

struct PageRun {
  std::uint32_t first = 0;  // page, from the start of the buffer
  Order order = 0;

  constexpr std::uint32_t count() const { return 1U << order; }
  constexpr std::uint32_t end() const { return first + count(); }
  constexpr bool operator==(const PageRun&) const = default;
};

// Appends runs that cover [first, first + count) pages, largest first, none above `cap`.
inline void append_runs(std::uint32_t first, std::uint32_t count, Order cap,
                        std::vector<PageRun>& out) {
  while (count != 0) {
    const Order fits = order_within(Pages(count));
    const PageRun run{first, fits < cap ? fits : cap};
    out.push_back(run);
    first += run.count();
    count -= run.count();
  }
}

}  // namespace kvcached::cache
