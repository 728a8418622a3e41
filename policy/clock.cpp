#include "policy/clock.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <new>

namespace kvcached {
namespace {

// How far the monotonic clock of this process's time namespace is ahead of the system's; see
// time_namespaces(7). Kernels before 5.6 have neither.
Duration shift() noexcept {
  const int file = ::open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);
  if (file < 0) return Duration::zero();
  std::array<char, 256> text{};
  const ssize_t length = ::read(file, text.data(), text.size() - 1);
  ::close(file);
  long long seconds = 0, nanoseconds = 0;
  if (length <= 0 || std::sscanf(text.data(), "monotonic %lld %lld", &seconds, &nanoseconds) != 2)
    return Duration::zero();
  return std::chrono::seconds(seconds) + std::chrono::nanoseconds(nanoseconds);
}

class SteadyClock final : public Clock {
 public:
  Instant now() const noexcept override {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now()) - shift_;
  }

 private:
  const Duration shift_ = shift();
};

}  // namespace

const Clock& steady_clock() noexcept {
  // Never destroyed, so that threads that outlive main can still ask for the time.
  alignas(SteadyClock) static std::byte place[sizeof(SteadyClock)];
  static const Clock& forever = *::new (place) SteadyClock;
  return forever;
}

}  // namespace kvcached
