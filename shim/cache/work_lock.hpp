// Being the one worker of a cache: whoever waits for work to end is told when it does.
#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

namespace kvcached::cache {

class WorkLock {
 public:
  // Waits for the worker before.
  WorkLock(std::mutex& work, std::mutex& state, std::condition_variable& ended) noexcept
      : WorkLock(std::unique_lock(work), state, ended) {}
  // Takes over a lock, got or not.
  WorkLock(std::unique_lock<std::mutex> work, std::mutex& state,
           std::condition_variable& ended) noexcept
      : work_(std::move(work)), state_(state), ended_(ended) {}
  ~WorkLock() {
    if (!work_.owns_lock()) return;
    work_.unlock();
    // A waiter tries to become the worker with the state locked: it has either seen the unlock, or
    // sleeps by now and hears this.
    { const std::lock_guard lock(state_); }
    ended_.notify_all();
  }
  WorkLock(const WorkLock&) = delete;
  WorkLock& operator=(const WorkLock&) = delete;

  bool owned() const noexcept { return work_.owns_lock(); }

 private:
  std::unique_lock<std::mutex> work_;
  std::mutex& state_;
  std::condition_variable& ended_;
};

}  // namespace kvcached::cache
