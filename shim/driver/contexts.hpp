// Which contexts may be used. The engine's threads destroy contexts in which the agent's thread
// makes calls: while one is being destroyed nobody may call the driver in it, nor afterwards.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "shim/driver/driver.hpp"

namespace kvcached::driver {

// Thread-safe.
class Contexts {
 public:
  // A call in a context, from its beginning to its end.
  class Use {
   public:
    Use(Contexts& contexts, ContextId context) noexcept
        : contexts_(contexts), context_(context), status_(contexts.enter(context)) {}
    ~Use() {
      if (status_ == Status::ok) contexts_.leave(context_);
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    // not_now: the context is being destroyed, perhaps in vain; lost: it was. Then the call must
    // not be made.
    Status status() const noexcept { return status_; }

   private:
    Contexts& contexts_;
    const ContextId context_;
    const Status status_;
  };

  // Returns when no thread uses the context, where it was ever seen; none does before closed().
  // pre: the caller does not.
  void closing(ContextId context) noexcept;
  // post: usable again, or gone.
  void closed(ContextId context, bool gone) noexcept;
  // The context lives, and may be used from now on: one that was destroyed may leave its address to
  // another.
  void seen(ContextId context) noexcept;

 private:
  struct State {
    std::uint32_t uses = 0;
    std::uint32_t closings = 0;  // a primary context may be released by several threads at once
    bool gone = false;
  };

  Status enter(ContextId context) noexcept;
  void leave(ContextId context) noexcept;

  std::mutex mutex_;
  std::condition_variable left_;
  std::unordered_map<void*, State> states_;
};

}  // namespace kvcached::driver
