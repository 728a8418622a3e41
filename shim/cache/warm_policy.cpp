#include "shim/cache/warm_policy.hpp"

#include <algorithm>
#include <cmath>

namespace kvcached::cache {

WarmPolicy::WarmPolicy(Blocks cap, Duration half_life) noexcept
    : cap_(cap), half_life_(half_life) {}

void WarmPolicy::sample(Instant now, Blocks live) noexcept {
  const auto floor = static_cast<double>(live.value);
  if (peak_ > floor && now > last_) {
    const double half_lives =
        std::chrono::duration<double>(now - last_) / std::chrono::duration<double>(half_life_);
    peak_ = floor + (peak_ - floor) * std::exp2(-half_lives);
  }
  peak_ = std::max(peak_, floor);
  last_ = std::max(last_, now);
}

Blocks WarmPolicy::keep(Blocks live, Blocks expected) const noexcept {
  const double surplus = peak_ - static_cast<double>(live.value);
  const Blocks decaying(surplus > 0 ? static_cast<std::uint64_t>(surplus) : 0);
  return capped(std::max(decaying, expected));
}

}  // namespace kvcached::cache
