// The thread of this process that works aside: it drives the workers of all elastic buffers (grow
// ahead, fence, release), frees what could not be freed at once, and keeps house.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "policy/clock.hpp"
#include "shim/cache/registry.hpp"
#include "shim/cache/worker.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::member {

// What is to be done now and then, beside the workers: publish figures, reap the dead.
class Housekeeper {
 public:
  virtual ~Housekeeper() = default;
  // On the agent's thread, ten times a second or less if nobody is in haste. True: something is
  // still under way (pages in limbo), so come again soon; false: once a second will do.
  virtual bool keep_house() noexcept = 0;
  // On the agent's thread, whenever it has woken: gives back what others in the pool wait for.
  // True: they plan with figures of this process that are out of date; so keep house soon.
  virtual bool obey() noexcept = 0;
};

// What the agent sleeps on: a count that goes up with each ring. Any thread; async-signal-safe.
class Bell {
 public:
  virtual ~Bell() = default;
  virtual std::uint32_t rung() const noexcept = 0;
  // Returns once it was rung after `seen`, or time is up; sometimes earlier.
  virtual void wait(std::uint32_t seen, Duration most) const noexcept = 0;
  virtual void ring() noexcept = 0;
};

// One thread, started by the first wake. It sleeps while nothing is to be done and wakes once a
// second at most then. Its signal mask is full: the engine's signals are the engine's.
class Agent final : public cache::Waker {
 public:
  Agent(cache::Registry& registry, driver::Driver& driver, Housekeeper& housekeeper, Bell& bell,
        const Clock& clock) noexcept;
  ~Agent() override = default;  // pre: stopped, or never started
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Any thread; never waits for the driver. A thread that cannot be started is tried again at the
  // next wake; until then callers that wait do the work themselves.
  void wake() noexcept override;

  // Ends the thread after the unit of work it is at; waits for that, two seconds at most. After it
  // wakes do nothing.
  void stop() noexcept;

  bool running() const noexcept;

 private:
  static void* enter(void* self) noexcept;
  void run() noexcept;
  void start_locked() noexcept;
  // Drives every worker until none has anything to do; says when the next one will have.
  Instant work_off() noexcept;
  bool stopping() const noexcept;

  cache::Registry& registry_;
  driver::Driver& driver_;
  Housekeeper& housekeeper_;
  Bell& bell_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  bool running_ = false;
  bool stopping_ = false;
};

}  // namespace kvcached::member
