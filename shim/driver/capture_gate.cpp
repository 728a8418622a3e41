#include "shim/driver/capture_gate.hpp"

#include <new>

#include "shim/driver/immortal.hpp"

namespace kvcached::driver {

bool CaptureGate::reserve(const Lock& /*held*/) noexcept try {
  captures_.reserve(captures_.size() + 1);
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

void CaptureGate::opened(const Lock& /*held*/, ContextId context, CapturedStream stream) noexcept {
  captures_.push_back({context, stream});
}

void CaptureGate::closed(CapturedStream stream) noexcept {
  const Lock lock = hold();
  std::erase_if(captures_, [&](const Capture& c) { return c.stream == stream; });
}

void CaptureGate::context_gone(ContextId context) noexcept {
  const Lock lock = hold();
  std::erase_if(captures_, [&](const Capture& c) { return c.context == context; });
}

CaptureGate& capture_gate() noexcept {
  static Immortal<CaptureGate> gate;
  return gate.object;
}

}  // namespace kvcached::driver
