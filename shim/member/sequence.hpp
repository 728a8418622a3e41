// The longest request of this process's model on one GPU that its tenant can ever hold: shorter
// than what the model was made for where limits, the pool or others' minimums leave less.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "policy/ledger/ledger.hpp"
#include "policy/sequence.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Thread-safe.
class Sequence {
 public:
  void describe(const ledger::ModelShape& model) noexcept;

  // Tokens, with so many pages within the tenant's reach; 0: nothing fits, or there is no model.
  std::uint32_t fitting(Pages reach, const cache::Registry& registry,
                        driver::DeviceId device) const noexcept;
  bool described() const noexcept;

  // By the agent: looks again, and tells on this thread what has changed since it last told; a
  // model and a listener that are new count as told of the full length. True: something has.
  bool look(Pages reach, const cache::Registry& registry, driver::DeviceId device) noexcept;
  // As look() last found it.
  std::uint32_t current() const noexcept;

  // None: no more calls, and none is under way any more.
  void on_change(std::function<void(std::uint32_t)> tell) noexcept;

 private:
  SequenceNeed model() const noexcept;

  mutable std::mutex mutex_;
  SequenceNeed model_;
  std::uint32_t current_ = 0;

  std::mutex telling_;  // taken first
  std::function<void(std::uint32_t)> tell_;
  std::uint32_t told_ = 0;
};

}  // namespace kvcached::member
