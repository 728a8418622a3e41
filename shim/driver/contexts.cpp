#include "shim/driver/contexts.hpp"

#include <new>

namespace kvcached::driver {

Status Contexts::enter(ContextId context) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    State& state = states_[context.context];
    if (state.closings != 0) return Status::not_now;
    if (state.gone) return Status::lost;
    ++state.uses;
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return Status::not_now;
  }
}

void Contexts::leave(ContextId context) noexcept {
  const std::lock_guard lock(mutex_);
  if (--states_.find(context.context)->second.uses == 0) left_.notify_all();
}

void Contexts::closing(ContextId context) noexcept {
  std::unique_lock lock(mutex_);
  const auto found = states_.find(context.context);
  if (found == states_.end()) return;  // nothing of ours was ever done in it
  State& state = found->second;        // stays where it is
  ++state.closings;
  left_.wait(lock, [&] { return state.uses == 0; });
}

void Contexts::closed(ContextId context, bool gone) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = states_.find(context.context);
  if (found == states_.end()) return;
  if (found->second.closings != 0) --found->second.closings;
  if (gone) found->second.gone = true;
}

void Contexts::seen(ContextId context) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    states_[context.context].gone = false;
  } catch (const std::bad_alloc&) {
    return;  // unknown, it is not waited for
  }
}

}  // namespace kvcached::driver
