// A function of the engine's that is told a number. It may replace itself while it runs.
#pragma once

#include <functional>
#include <utility>

namespace kvcached::cache {

// Not thread-safe: under a lock that the same thread may take again.
template <class Number>
class Listener {
 public:
  void set(std::function<void(Number)> tell) noexcept {
    tell_ = std::move(tell);
    replaced_ = true;
  }

  void tell(Number number) {
    if (!tell_) return;
    // Aside, since set() must not destroy what runs.
    std::function<void(Number)> running = std::exchange(tell_, nullptr);
    replaced_ = false;
    running(number);
    if (!replaced_) tell_ = std::move(running);
  }

 private:
  std::function<void(Number)> tell_;
  bool replaced_ = false;
};

}  // namespace kvcached::cache
