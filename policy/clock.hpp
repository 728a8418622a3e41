// Time as the policy sees it: injected, so that tests and simulations can run it at will.
#pragma once

#include <chrono>

namespace kvcached {

using Duration = std::chrono::nanoseconds;
using Instant = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const noexcept = 0;
};

// The system's monotonic clock, the same for all processes of one boot: where a time namespace
// shifts it, the shift is taken off. So it is not what functions that wait until an instant go by.
const Clock& steady_clock() noexcept;

}  // namespace kvcached
