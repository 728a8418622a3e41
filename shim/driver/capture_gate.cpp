#include "shim/driver/capture_gate.hpp"

#include "shim/driver/immortal.hpp"

namespace kvcached::driver {

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
