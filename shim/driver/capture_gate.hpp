// Keeps fences and stream captures apart. Asking the driver for an event over a context in which
// a stream takes part in a capture ruins it, so both take this lock, and open captures are listed.
//
// Whether a stream still captures is never asked of the driver: it crashes on a stream that was
// destroyed meanwhile. The list is kept by the hooks of begin, end, destroy and context end.
#pragma once

#include <mutex>
#include <vector>

#include "shim/driver/driver.hpp"

namespace kvcached::driver {

// A stream as captures know it: a per-thread default stream has the same handle in all threads.
struct CapturedStream {
  const void* stream = nullptr;  // CUstream
  const void* thread = nullptr;  // identifies the thread, for per-thread default streams only
  constexpr bool operator==(const CapturedStream&) const = default;
};

class CaptureGate {
 public:
  using Lock = std::unique_lock<std::mutex>;

  // No capture begins and no fence is taken while this is held. Held over one driver call.
  Lock hold() noexcept { return Lock(mutex_); }

  // Whether a stream captures, of whatever context: streams of others may have joined it, and a
  // fence in theirs would ruin it too.
  bool open(const Lock&) const noexcept { return !captures_.empty(); }
  // Before a capture begins: makes room to list it. False: there is none.
  bool reserve(const Lock&) noexcept;
  // pre: reserve() said yes, under the same lock.
  void opened(const Lock&, ContextId context, CapturedStream stream) noexcept;

  // The capture of this stream ended, or the stream is about to be destroyed.
  void closed(CapturedStream stream) noexcept;
  void context_gone(ContextId context) noexcept;

 private:
  struct Capture {
    ContextId context;
    CapturedStream stream;
  };
  std::mutex mutex_;
  std::vector<Capture> captures_;
};

// The one gate of this process.
CaptureGate& capture_gate() noexcept;

}  // namespace kvcached::driver
