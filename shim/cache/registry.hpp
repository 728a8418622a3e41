// All elastic buffers of the process by address.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "shim/cache/buffer.hpp"
#include "shim/cache/worker.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::cache {

enum class Found : std::uint8_t {
  unknown,   // not ours
  base,      // the start of a buffer
  interior,  // inside a buffer's reserved range
};

struct Lookup {
  Found found = Found::unknown;
  std::shared_ptr<Buffer> buffer;
  Bytes offset;  // of the address in the buffer
};

// Takes no memory of its own: each buffer holds the next. One that is in a stack is in no other.
class BufferStack {
 public:
  BufferStack() = default;
  BufferStack(BufferStack&&) noexcept = default;
  BufferStack& operator=(BufferStack&&) = delete;
  ~BufferStack() {
    while (pop() != nullptr) {
    }
  }

  bool empty() const noexcept { return first_ == nullptr; }
  void push(std::shared_ptr<Buffer> buffer) noexcept;
  std::shared_ptr<Buffer> pop() noexcept;  // the last one pushed; null: empty

 private:
  std::shared_ptr<Buffer> first_;
};

// Thread-safe. Buffers are shared: one that a thread takes out stays valid for those who found it
// before, and answers `lost` once it is destroyed.
class Registry {
 public:
  // One load: lets hooks pass through at no cost while nothing is elastic.
  bool empty() const noexcept { return count_.load(std::memory_order_acquire) == 0; }
  std::size_t count() const noexcept { return count_.load(std::memory_order_acquire); }

  // False (and not added) when its addresses are taken, or without memory.
  bool add(std::shared_ptr<Buffer> buffer) noexcept;
  // Three loads where the address lies outside of all buffers. So take(), too.
  Lookup find(driver::Address address) const noexcept;

  // Takes the buffer that starts at `base` out, for one caller only: a second free of the same
  // address finds it unknown. interior: told, not taken.
  Lookup take(driver::Address base) noexcept;
  // Takes out all buffers of a context.
  BufferStack take_all(driver::ContextId context) noexcept;

  // Keeps a taken buffer that could not be destroyed yet (not_now).
  void bury(std::shared_ptr<Buffer> buffer) noexcept;
  // Tries again to destroy the buried. True when some are left.
  bool tend() noexcept;

  // Throws std::bad_alloc, as the next.
  std::vector<std::shared_ptr<Buffer>> buffers() const;
  // The workers of all buffers, each once: what the agent drives.
  std::vector<std::shared_ptr<Worker>> workers() const;
  // Sum of the sizes that the engine asked for.
  Bytes requested() const noexcept;

 private:
  bool is_outside(driver::Address address) const noexcept;
  Lookup find_locked(driver::Address address) const noexcept;

  mutable std::shared_mutex mutex_;
  std::map<driver::Address, std::shared_ptr<Buffer>> by_base_;
  BufferStack buried_;
  std::atomic<std::size_t> count_{0};
  // All buffers, now and before, lie in [low_, high_). Written before `count_`.
  std::atomic<driver::Address> low_{~driver::Address{0}}, high_{0};
};

}  // namespace kvcached::cache
