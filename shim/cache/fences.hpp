// Fences of one context in the order they were taken. A fence covers all work launched before it,
// so they pass in order, and one number says which have.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "policy/clock.hpp"
#include "shim/cache/result.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::cache {

// Not thread-safe.
class Fences {
 public:
  using Ticket = std::uint64_t;  // 0: none

  Fences(driver::Driver& driver, driver::ContextId context) noexcept;
  ~Fences();
  Fences(const Fences&) = delete;
  Fences& operator=(const Fences&) = delete;

  // Takes a fence over all work launched so far. A driver without fences: waits for that work.
  // not_now: a capture is open, or too many fences are open.
  Result take(Ticket& out) noexcept;
  // Asks the driver about the open ones. lost: the context is.
  Result poll() noexcept;
  bool passed(Ticket ticket) const noexcept { return ticket <= passed_; }
  bool open() const noexcept { return count_ != 0; }
  // After which the open ones are worth asking about again: short at first, as the GPU may have
  // nothing to do.
  Duration pause() const noexcept { return pause_; }

 private:
  struct Open {
    driver::Fence fence;
    Ticket ticket = 0;
  };
  static constexpr std::size_t kMostOpen = 8;
  static constexpr Duration kShortest = std::chrono::microseconds(50);
  static constexpr Duration kLongest = std::chrono::milliseconds(1);

  void pass(std::size_t count) noexcept;

  driver::Driver& driver_;
  const driver::ContextId context_;
  std::array<Open, kMostOpen> open_{};  // oldest first
  std::size_t count_ = 0;
  Ticket last_ = 0;
  Ticket passed_ = 0;
  Duration pause_ = kShortest;
};

}  // namespace kvcached::cache
