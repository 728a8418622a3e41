#include "shim/member/pool_bell.hpp"

#include "policy/ledger/bell.hpp"

namespace kvcached::member {

void PoolBell::listen(ledger::Ledger& pool) noexcept {
  ledger::Ledger* none = nullptr;
  if (pool_.compare_exchange_strong(none, &pool)) ledger::ring(own_);  // whoever waits looks anew
}

// The sum of both counts: whichever is rung, it is another number.
std::uint32_t PoolBell::rung() const noexcept {
  const ledger::Ledger* const pool = pool_.load(std::memory_order_acquire);
  const std::uint32_t own = own_.load(std::memory_order_acquire);
  return pool == nullptr ? own : own + pool->rung();
}

void PoolBell::wait(std::uint32_t seen, Duration most) const noexcept {
  const ledger::Ledger* const pool = pool_.load(std::memory_order_acquire);
  const std::uint32_t own = own_.load(std::memory_order_acquire);
  if (pool == nullptr) {
    ledger::wait_for_ring(own_, seen, most);
  } else {
    pool->wait(seen - own, most);
  }
}

void PoolBell::ring() noexcept {
  ledger::Ledger* const pool = pool_.load(std::memory_order_acquire);
  if (pool == nullptr) {
    ledger::ring(own_);
    // The pool may have come in between.
    if (pool_.load(std::memory_order_acquire) == nullptr) return;
  }
  pool_.load(std::memory_order_acquire)->wake();
}

}  // namespace kvcached::member
