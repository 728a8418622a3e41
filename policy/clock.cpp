#include "policy/clock.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string_view>
#include <system_error>

#include "policy/small_file.hpp"

namespace kvcached {
namespace {

// How far the monotonic clock of this process's time namespace is ahead of the system's; see
// time_namespaces(7): "monotonic SECONDS NANOSECONDS". Kernels before 5.6 have neither.
Duration shift() noexcept {
  constexpr std::string_view kName = "monotonic";
  std::array<char, 256> room{};
  std::string_view text = read_small("/proc/self/timens_offsets", room);
  if (!text.starts_with(kName)) return Duration::zero();
  text.remove_prefix(kName.size());
  std::array<std::int64_t, 2> parts{};
  for (std::int64_t& part : parts) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    const auto read = std::from_chars(text.data(), text.data() + text.size(), part);
    if (read.ec != std::errc()) return Duration::zero();
    text.remove_prefix(static_cast<std::size_t>(read.ptr - text.data()));
  }
  return std::chrono::seconds(parts[0]) + std::chrono::nanoseconds(parts[1]);
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
