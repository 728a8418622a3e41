// Work that is done aside: what the agent's thread drives, and how it is told that there is some.
#pragma once

#include "policy/clock.hpp"

namespace kvcached::cache {

// The answer of one unit of work.
struct Work {
  bool worked = false;            // something was done, there may be more: call again at once
  Instant next = Instant::max();  // otherwise: call again then, or after a wake
};

class Worker {
 public:
  virtual ~Worker() = default;

  // Does one bounded unit: at most one stripe or extent is mapped or released. Any thread, one at a
  // time: while another thread works, it answers at once that there is something to do soon.
  virtual Work work() noexcept = 0;

  // Ends the worker: nothing is allocatable any more, its memory goes back behind a fence, in
  // further calls of work(), until finished(). Any thread, any number of times; never waits.
  virtual void close() noexcept = 0;

  // Closed and done: it has let go of its buffers.
  virtual bool finished() const noexcept = 0;
};

// Called by the cache floor when a worker has something to do before the time it named. Any thread;
// must not wait and must not call back.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void wake() noexcept = 0;
};

}  // namespace kvcached::cache
