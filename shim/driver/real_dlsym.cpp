#include "shim/driver/real_dlsym.hpp"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstring>

namespace kvcached::driver {

DlsymFunction real_dlsym() noexcept {
  // Constant-initialized: dlsym may be called before any constructor of ours.
  static constinit std::atomic<DlsymFunction> found{nullptr};
  auto real = found.load(std::memory_order_acquire);
  if (real != nullptr) {
    return real;
  }
  // dlsym moved from libdl to libc in 2.34; before it has the version of the platform's first ABI.
  for (const char* version : {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"}) {
    real = reinterpret_cast<DlsymFunction>(dlvsym(RTLD_NEXT, "dlsym", version));
    if (real != nullptr) {
      found.store(real, std::memory_order_release);
      break;
    }
  }
  return real;
}

void* library_of(const void* address) noexcept {
  Dl_info info{};
  link_map* map = nullptr;
  if (dladdr1(address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) {
    return nullptr;
  }
  // The loader's map of a library that came with the program is no handle before somebody opened
  // it: a look-up in it would crash.
  void* handle = dlopen(map->l_name, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
  if (handle != nullptr) dlclose(handle);
  return handle;
}

bool lies_in(const void* address, const char* name) noexcept {
  Dl_info info{};
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) {
    return false;
  }
  const char* slash = std::strrchr(info.dli_fname, '/');
  const char* file = slash == nullptr ? info.dli_fname : slash + 1;
  return std::strncmp(file, name, std::strlen(name)) == 0;
}

}  // namespace kvcached::driver
