#include "policy/ledger/bell.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace kvcached::ledger {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

void ring(std::atomic<std::uint32_t>& bell) noexcept {
  bell.fetch_add(1, std::memory_order_release);
  ::syscall(SYS_futex, &bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void wait_for_ring(std::atomic<std::uint32_t>& bell, std::uint32_t seen, Duration most) noexcept {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const std::int64_t ns = std::clamp<std::int64_t>(most.count(), 0, 3600 * kSecond);
  const timespec time{static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
  ::syscall(SYS_futex, &bell, FUTEX_WAIT, seen, &time, nullptr, 0);
}

}  // namespace kvcached::ledger
