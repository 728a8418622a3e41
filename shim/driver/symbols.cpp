#include "shim/driver/symbols.hpp"

#include <dlfcn.h>

#include <atomic>
#include <mutex>

#include "shim/driver/real_dlsym.hpp"
#include "shim/log.hpp"

namespace kvcached::driver {
namespace {

constinit std::atomic<const void*> noted{nullptr};

enum class State : std::uint8_t { unknown, usable, unusable };
constinit std::atomic<State> state{State::unknown};
constinit Symbols table;

void* driver_library() noexcept {
  if (const void* function = noted.load(std::memory_order_acquire)) {
    return library_of(function);
  }
  return dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

template <class F>
bool look_up(void* library, const char* name, F*& out) noexcept {
  out = reinterpret_cast<F*>(real_dlsym()(library, name));
  return out != nullptr;
}

State load() noexcept {
  void* library = real_dlsym() == nullptr ? nullptr : driver_library();
  if (library == nullptr) {
    return State::unknown;
  }
  const char* missing = nullptr;
#define KVCACHED_REQUIRED(symbol, ...) \
  if (!look_up(library, #symbol, table.symbol)) missing = #symbol;
#define KVCACHED_OPTIONAL(symbol, ...) look_up(library, #symbol, table.symbol);
  KVCACHED_DRIVER_SYMBOLS(KVCACHED_REQUIRED, KVCACHED_OPTIONAL)
#undef KVCACHED_REQUIRED
#undef KVCACHED_OPTIONAL
  if (missing != nullptr) {
    warn("the CUDA driver has no {}: memory stays plain", missing);
    return State::unusable;
  }
  return State::usable;
}

}  // namespace

void note_driver(const void* function) noexcept {
  const void* nobody = nullptr;
  noted.compare_exchange_strong(nobody, function, std::memory_order_acq_rel);
}

const Symbols* symbols() noexcept {
  State now = state.load(std::memory_order_acquire);
  if (now == State::unknown) {
    static constinit std::mutex loading;
    const std::lock_guard lock(loading);
    now = state.load(std::memory_order_acquire);
    if (now == State::unknown) {
      now = load();
      state.store(now, std::memory_order_release);
    }
  }
  return now == State::usable ? &table : nullptr;
}

}  // namespace kvcached::driver
