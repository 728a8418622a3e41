#pragma once

#include <new>

#include "tests/sim/context.hpp"
#include "tests/sim/cuda_api.hpp"

namespace sim {

/// The way into every call: initialised, not in a forked child, not in a callback, no injected
/// fault; then the call's latency. `name` is the exported one.
CUresult admit(const char* name);

/// Whether this is a child that was forked after the initialisation: its locks may be held for
/// ever.
bool in_forked_child();

/// Marks the simulator as initialised, and this process as its owner.
CUresult initialise();

/// While it lives, this thread is inside a host callback, where no call is permitted.
class InCallback {
 public:
  InCallback();
  ~InCallback();
  InCallback(const InCallback&) = delete;
  InCallback& operator=(const InCallback&) = delete;
};

/// Runs the body of a call that needs no context.
template <class Body>
CUresult enter(const char* name, const Body& body) {
  if (const CUresult refused = admit(name); refused != CUDA_SUCCESS) return refused;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
}

/// Runs the body of a call that works on the current context: there is one, alive and well.
template <class Body>
CUresult enter_context(const char* name, const Body& body) {
  return enter(name, [&]() -> CUresult {
    Context* context = nullptr;
    const CUresult refused = usable_context(context);
    return refused != CUDA_SUCCESS ? refused : body(*context);
  });
}

}  // namespace sim
