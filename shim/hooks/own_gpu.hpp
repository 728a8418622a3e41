// The GPU as its engine sees it: the engine's own. What other members hold does not show, or ten
// engines that each want 90 % of "free" would starve one another at start. Pure.
#pragma once

#include "policy/units.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::hooks {

// What this process and the pool hold physically when the engine first asks.
struct Held {
  Bytes plain;    // this process's plain allocations
  Bytes elastic;  // memory behind its elastic buffers
  Bytes members;  // everything of all other members
};

// What nobody in the pool holds: other programs, and the driver's own needs, this process's context
// included. Taken once and kept, so that what the engine measures between two questions is what it
// did itself.
constexpr Bytes held_outside(driver::MemoryInfo real, const Held& held) noexcept {
  return real.total.minus_clamped(real.free)
      .minus_clamped(held.plain)
      .minus_clamped(held.elastic)
      .minus_clamped(held.members);
}

// `asked`: the sizes of all this process's allocations as it asked for them, elastic ones whole.
constexpr driver::MemoryInfo own_gpu(Bytes total, Bytes outside, Bytes asked) noexcept {
  return {total.minus_clamped(outside).minus_clamped(asked), total};
}

}  // namespace kvcached::hooks
