#include "policy/clock.hpp"

#include <cstddef>
#include <new>

namespace kvcached {
namespace {

class SteadyClock final : public Clock {
 public:
  Instant now() const noexcept override {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
  }
};

}  // namespace

const Clock& steady_clock() noexcept {
  // Never destroyed, so that threads that outlive main can still ask for the time.
  alignas(SteadyClock) static std::byte place[sizeof(SteadyClock)];
  static const Clock& forever = *::new (place) SteadyClock;
  return forever;
}

}  // namespace kvcached
