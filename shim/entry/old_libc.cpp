// Stand-ins for libc functions newer than 2.34 that the static C++ runtime of a newer system pulls
// in, so that a library built there loads on an older one. Hidden: only this library sees them.
#include <sys/random.h>

#include <cstdint>

extern "C" {

// "No such object": the unwinder then walks the loaded objects itself, as it did before 2.35.
[[gnu::visibility("hidden")]] int kvcached_dl_find_object(void* address, void* result) noexcept
    __asm__("_dl_find_object");
int kvcached_dl_find_object(void* /*address*/, void* /*result*/) noexcept { return -1; }

// Since 2.36; behind std::random_device.
[[gnu::visibility("hidden")]] std::uint32_t kvcached_arc4random() noexcept __asm__("arc4random");
std::uint32_t kvcached_arc4random() noexcept {
  std::uint32_t value = 0;
  while (getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) {
  }
  return value;
}
}
