// A driver of the future, as far as look-ups go: there is a third generation of cuMemAlloc, and the
// cuMemFree that it answers is no exported symbol.
#include <cstdint>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

#define HIDDEN extern "C" __attribute__((visibility("hidden")))

// Named twice: as a real driver does, it means its own functions, whatever else has such a name.
// Different bodies, so that each has an address of its own.
HIDDEN int alloc_2(std::uint64_t*, std::uint64_t) noexcept { return 1002; }
HIDDEN int alloc_3(std::uint64_t*, std::uint64_t, int) noexcept { return 1003; }
EXPORTED int cuMemAlloc_v2(std::uint64_t*, std::uint64_t) noexcept
    __attribute__((alias("alloc_2")));
EXPORTED int cuMemAlloc_v3(std::uint64_t*, std::uint64_t, int) noexcept
    __attribute__((alias("alloc_3")));

namespace {
int unnamed_free(std::uint64_t) { return 1004; }
}  // namespace

EXPORTED int cuGetProcAddress_v2(const char* name, void** out, int version, std::uint64_t, int*) {
  *out = nullptr;
  if (std::strcmp(name, "cuMemAlloc") == 0) {
    *out = version >= 14000 ? reinterpret_cast<void*>(&alloc_3) : reinterpret_cast<void*>(&alloc_2);
  } else if (std::strcmp(name, "cuMemFree") == 0) {
    *out = reinterpret_cast<void*>(&unnamed_free);
  }
  return 0;
}
