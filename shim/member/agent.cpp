#include "shim/member/agent.hpp"

#include <algorithm>
#include <csignal>
#include <utility>
#include <vector>

#include "shim/log.hpp"

namespace kvcached::member {

namespace {

using std::chrono::milliseconds;

constexpr Duration kBusyHouse = milliseconds(100);
constexpr Duration kIdleHouse = std::chrono::seconds(1);
constexpr Duration kHastyHouse = milliseconds(2);
constexpr Duration kStopPatience = std::chrono::seconds(2);

}  // namespace

Agent::Agent(cache::Registry& registry, driver::Driver& driver, Housekeeper& housekeeper,
             Bell& bell, const Clock& clock) noexcept
    : registry_(registry), driver_(driver), housekeeper_(housekeeper), bell_(bell), clock_(clock) {}

void Agent::wake() noexcept {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  woken_ = true;
  if (running_)
    bell_.ring();
  else
    start_locked();
}

void Agent::start_locked() noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread{};
  running_ = pthread_create(&thread, nullptr, &Agent::enter, this) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (running_) {
    pthread_detach(thread);
    pthread_setname_np(thread, "kvcached");
  } else {
    warn("the thread that maps memory could not be started; the engine's threads do its work");
  }
}

void Agent::stop() noexcept {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  bell_.ring();
  changed_.wait_until(lock, std::chrono::steady_clock::now() + kStopPatience,
                      [this] { return !running_; });
}

bool Agent::running() const noexcept {
  const std::lock_guard lock(mutex_);
  return running_;
}

bool Agent::stopping() const noexcept {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

void* Agent::enter(void* self) noexcept {
  static_cast<Agent*>(self)->run();
  return nullptr;
}

Instant Agent::work_off() noexcept {
  Instant next = Instant::max();
  for (bool worked = true; worked && !stopping();) {
    worked = false;
    next = registry_.tend() ? clock_.now() + milliseconds(10) : Instant::max();
    try {
      for (const auto& worker : registry_.workers()) {
        const cache::Work work = worker->work();
        worked = worked || work.worked;
        next = std::min(next, work.next);
      }
    } catch (...) {  // no memory for the list: come back when there may be some
      return clock_.now() + kBusyHouse;
    }
  }
  return next;
}

void Agent::run() noexcept {
  driver_.adopt_thread();
  Instant house = clock_.now();
  bool busy = true;
  for (;;) {
    const std::uint32_t seen = bell_.rung();
    if (housekeeper_.obey()) {
      house = std::min(house, house - kBusyHouse + kHastyHouse);
      busy = true;
    }
    const Instant next = work_off();
    const Instant now = clock_.now();
    if (now >= house) {
      busy = housekeeper_.keep_house();
      house = now + kBusyHouse;
    }
    // Idle, the house waits for its second; any wake brings it forward to its tenth.
    const Instant idle_house = busy ? house : house - kBusyHouse + kIdleHouse;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) {
        running_ = false;
        changed_.notify_all();
        return;
      }
      busy = busy || woken_;
      if (std::exchange(woken_, false)) continue;
    }
    const Instant until = std::min(next, idle_house);
    if (until > now) bell_.wait(seen, until - now);
  }
}

}  // namespace kvcached::member
