// How a process waits for a lock on the pool's file that another one holds: nobody wakes it.
#pragma once

#include <optional>

#include "policy/clock.hpp"

namespace kvcached::ledger {

// Of one wait. Spins at first, as a holder is normally done within 5 us and a sleep takes 100 at
// least; then sleeps, ever longer up to a millisecond.
class Patience {
 public:
  explicit Patience(int milliseconds) noexcept : most_(std::chrono::milliseconds(milliseconds)) {}

  // To be called when the lock was not to be had. False: that was the last try; the last sleep may
  // have gone beyond the time.
  bool wait() noexcept;

 private:
  static constexpr Duration kFirst = std::chrono::microseconds(1);
  static constexpr Duration kLongestSpin = std::chrono::microseconds(16);
  static constexpr Duration kLongest = std::chrono::milliseconds(1);

  const Duration most_;
  std::optional<Instant> begin_;
  Duration pause_ = kFirst;
};

}  // namespace kvcached::ledger
