#include "tests/sim/call.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <mutex>

#include "tests/sim/device.hpp"
#include "tests/sim/faults.hpp"
#include "tests/sim/latency.hpp"
#include "tests/sim/trap.hpp"

namespace sim {
namespace {

enum class State { kNew, kReady, kForked, kEnding };

std::atomic<State> state{State::kNew};
thread_local int callbacks = 0;

void after_fork_in_child() {
  if (state != State::kReady) return;
  state = State::kForked;
  for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
    find_device(ordinal)->memory->forget_locks();
  }
}

/// The threads of streams run this code to the very end of the process.
void stay_loaded() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&stay_loaded), &info) != 0) {
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  }
}

__attribute__((destructor)) void end() {
  State ready = State::kReady;
  if (!state.compare_exchange_strong(ready, State::kEnding)) return;
  for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
    find_device(ordinal)->memory->leave();
  }
}

}  // namespace

CUresult initialise() {
  static std::mutex& mutex = *new std::mutex;
  if (state == State::kForked) return CUDA_ERROR_NOT_INITIALIZED;
  if (state == State::kEnding) return CUDA_ERROR_DEINITIALIZED;
  const std::lock_guard lock(mutex);
  if (state == State::kReady) return CUDA_SUCCESS;
  if (const CUresult failed = open_devices(); failed != CUDA_SUCCESS) return failed;
  stay_loaded();
  install_trap();
  pthread_atfork(nullptr, nullptr, after_fork_in_child);
  state = State::kReady;
  return CUDA_SUCCESS;
}

bool in_forked_child() { return state == State::kForked; }

CUresult admit(const char* name) {
  switch (state.load(std::memory_order_acquire)) {
    case State::kNew:
    case State::kForked:
      return CUDA_ERROR_NOT_INITIALIZED;
    case State::kEnding:
      return CUDA_ERROR_DEINITIALIZED;
    case State::kReady:
      break;
  }
  if (callbacks != 0) return CUDA_ERROR_NOT_PERMITTED;
  if (const CUresult fault = injected_fault(name); fault != CUDA_SUCCESS) return fault;
  delay(name);
  return CUDA_SUCCESS;
}

InCallback::InCallback() { ++callbacks; }
InCallback::~InCallback() { --callbacks; }

}  // namespace sim
