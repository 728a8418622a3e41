#include "policy/ledger/patience.hpp"

#include <algorithm>
#include <ctime>

namespace kvcached::ledger {

bool Patience::wait() noexcept {
  const Instant now = steady_clock().now();
  if (now - begin_.value_or(now) >= most_) return false;
  if (!begin_) begin_ = now;
  if (pause_ <= kLongestSpin) {
    while (steady_clock().now() - now < pause_) {
    }
  } else {
    const timespec sleep{0, static_cast<long>(pause_.count())};
    ::nanosleep(&sleep, nullptr);
  }
  pause_ = std::min(2 * pause_, kLongest);
  return true;
}

}  // namespace kvcached::ledger
