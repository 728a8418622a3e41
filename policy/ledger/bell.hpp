// A word in shared memory that one process rings and another waits on.
#pragma once

#include <atomic>
#include <cstdint>

#include "policy/clock.hpp"

namespace kvcached::ledger {

// Any process that maps the word may ring; async-signal-safe.
void ring(std::atomic<std::uint32_t>& bell) noexcept;
// Returns once the word is not `seen` any more, or after `most`; sometimes earlier.
void wait_for_ring(std::atomic<std::uint32_t>& bell, std::uint32_t seen, Duration most) noexcept;

}  // namespace kvcached::ledger
