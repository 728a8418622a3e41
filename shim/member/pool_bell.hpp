// The bell of the agent: in the slot of the first pool that this process joined, where peers ring
// it too; before that, its own. (Peers in the other pools of a process of several GPUs are heard at
// the next look after the house.)
#pragma once

#include <atomic>

#include "policy/ledger/ledger.hpp"
#include "shim/member/agent.hpp"

namespace kvcached::member {

class PoolBell final : public Bell {
 public:
  // From now on this pool's bell, if it is the first. The ledger outlives the bell.
  void listen(ledger::Ledger& pool) noexcept;

  std::uint32_t rung() const noexcept override;
  void wait(std::uint32_t seen, Duration most) const noexcept override;
  void ring() noexcept override;

 private:
  mutable std::atomic<std::uint32_t> own_{0};
  std::atomic<ledger::Ledger*> pool_{nullptr};
};

}  // namespace kvcached::member
