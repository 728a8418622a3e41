// How many free blocks a cache keeps backed: freed ones stay for a while, because load comes in
// waves, and decay towards what is in use. Pure: time comes in with the samples.
#pragma once

#include "policy/clock.hpp"
#include "policy/units.hpp"

namespace kvcached {

// Not thread-safe.
class WarmPolicy {
 public:
  // At most `cap` blocks stay warm. The surplus of the recent peak over the live blocks halves in
  // every `half_life`, down to `floor`: what lets the first request after a quiet time find memory.
  explicit WarmPolicy(Blocks cap, Blocks floor = {},
                      Duration half_life = std::chrono::seconds(1)) noexcept;

  // Says how many blocks are live now. Call before every release and from time to time. `idle`: the
  // caller uses none of them, and waits by itself before it releases any: the surplus halves in a
  // quarter of the time.
  void sample(Instant now, Blocks live, bool idle = false) noexcept;

  // Blocks to keep free and backed, when the caller expects to need `expected` soon.
  Blocks keep(Blocks live, Blocks expected) const noexcept;
  // Whether keep() will be less after a while, if nothing else changes.
  bool decaying(Blocks live, Blocks expected) const noexcept;
  // Of those expected, as many as the cap allows: worth growing for.
  Blocks capped(Blocks expected) const noexcept { return expected < cap_ ? expected : cap_; }

  // Forgets the peak: nothing stays for old times' sake, nor the floor before more is live again.
  void forget() noexcept {
    peak_ = 0;
    floored_ = false;
  }

 private:
  Blocks surplus(Blocks live) const noexcept;

  Blocks cap_;
  Blocks floor_;
  Duration half_life_;
  bool floored_ = false;
  double peak_ = 0;
  Instant last_{};
};

}  // namespace kvcached
