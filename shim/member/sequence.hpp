// The longest request of this process's model on one GPU that its tenant can ever hold: shorter
// than what the model was made for where limits, the pool or others' minimums leave less.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

#include "policy/clock.hpp"
#include "policy/ledger/ledger.hpp"
#include "policy/sequence.hpp"
#include "shim/cache/listener.hpp"
#include "shim/cache/registry.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// Thread-safe.
class Sequence {
 public:
  void describe(const ledger::ModelShape& model) noexcept;

  // Tokens, with so many pages within the tenant's reach; 0: nothing fits, or there is no model.
  // Looks at every cache; without memory for that, as look() last found it. Without a reach, with
  // the last that was known; then the whole length, if there was none.
  std::uint32_t fitting(std::optional<Pages> reach, const cache::Registry& registry,
                        driver::DeviceId device) noexcept;
  bool described() const noexcept;

  // By the agent: looks again, and tells on this thread what has changed since it last told; a
  // model and a listener that are new count as told of the full length. True: something has. The
  // caches themselves are looked at only when the reach or their number is another, or once a
  // second: this is called at every wake.
  bool look(std::optional<Pages> reach, std::size_t caches, Instant now,
            const cache::Registry& registry, driver::DeviceId device) noexcept;
  // As look() last found it.
  std::uint32_t current() const noexcept;

  // None: no more calls, and none is under way any more in another thread.
  void on_change(std::function<void(std::uint32_t)> tell) noexcept;

 private:
  SequenceNeed model() const noexcept;

  mutable std::mutex mutex_;
  SequenceNeed model_;
  std::uint32_t current_ = 0;
  std::optional<Pages> reach_;  // the last that was known

  struct Seen {
    std::optional<Pages> reach;
    std::size_t caches;
    Instant at;
  };

  // Held during the listener's call, which may come back here; taken first.
  std::recursive_mutex telling_;
  std::optional<Seen> seen_;  // none: look again
  cache::Listener<std::uint32_t> listener_;
  std::uint32_t told_ = 0;
};

}  // namespace kvcached::member
