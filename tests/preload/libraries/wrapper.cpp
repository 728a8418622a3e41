// Another interposer: its cuMemAlloc_v2 and cuMemsetD8_v2 count, and call the next one after it. It
// also answers `which`, of which several libraries have their own.
#include <dlfcn.h>

#include <atomic>
#include <cstddef>

namespace {
std::atomic<int> calls{0};
std::atomic<int> fills{0};
}  // namespace

extern "C" {
#define EXPORTED __attribute__((visibility("default")))

EXPORTED int cuMemAlloc_v2(unsigned long long* out, std::size_t size) {
  ++calls;
  auto next = reinterpret_cast<int (*)(unsigned long long*, std::size_t)>(
      dlsym(RTLD_NEXT, "cuMemAlloc_v2"));
  return next(out, size);
}
EXPORTED int wrapper_calls() { return calls; }

EXPORTED int cuMemsetD8_v2(unsigned long long at, unsigned char value, std::size_t size) {
  ++fills;
  auto next = reinterpret_cast<int (*)(unsigned long long, unsigned char, std::size_t)>(
      dlsym(RTLD_NEXT, "cuMemsetD8_v2"));
  return next(at, value, size);
}
EXPORTED int wrapper_fills() { return fills; }

EXPORTED const char* which() { return "wrapper"; }
EXPORTED const char* which_after_wrapper() {
  auto next = reinterpret_cast<const char* (*)()>(dlsym(RTLD_NEXT, "which"));
  return next == nullptr ? "none" : next();
}
EXPORTED const char* which_by_default() {
  return reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "which"))();
}
}
