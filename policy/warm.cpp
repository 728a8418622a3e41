#include "policy/warm.hpp"

#include <algorithm>
#include <cmath>

namespace kvcached {

WarmPolicy::WarmPolicy(Blocks cap, Blocks floor, Duration half_life) noexcept
    : cap_(cap), floor_(floor), half_life_(half_life) {}

void WarmPolicy::sample(Instant now, Blocks live, bool idle) noexcept {
  const auto in_use = static_cast<double>(live.value);
  if (peak_ > in_use && now > last_) {
    const double half_lives = std::chrono::duration<double>(now - last_) /
                              std::chrono::duration<double>(idle ? half_life_ / 4 : half_life_);
    peak_ = in_use + (peak_ - in_use) * std::exp2(-half_lives);
  }
  floored_ = floored_ || in_use > peak_;
  peak_ = std::max(peak_, in_use);
  last_ = std::max(last_, now);
}

Blocks WarmPolicy::surplus(Blocks live) const noexcept {
  const double surplus = peak_ - static_cast<double>(live.value);
  return Blocks(surplus > 0 ? static_cast<std::uint64_t>(surplus) : 0);
}

Blocks WarmPolicy::keep(Blocks live, Blocks expected) const noexcept {
  return capped(std::max({surplus(live), expected, floored_ ? floor_ : Blocks()}));
}

bool WarmPolicy::decaying(Blocks live, Blocks expected) const noexcept {
  return surplus(live) > std::max(expected, floored_ ? floor_ : Blocks());
}

}  // namespace kvcached
