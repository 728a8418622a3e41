// Stands between a CUDA runtime and the library, and writes down every look-up of the runtime by
// cuGetProcAddress: the request, what the runtime got, and what the driver itself answers. Goes
// before the library in LD_PRELOAD; writes to the file that WITNESS_FILE names.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim/driver/cuda_abi.hpp"

namespace {

using Dlsym = void* (*)(void*, const char*);
using GetProcAddress = decltype(&cuGetProcAddress_v2);

GetProcAddress from_library = nullptr;
GetProcAddress from_driver = nullptr;

Dlsym libc_dlsym() {
  static auto found = reinterpret_cast<Dlsym>(dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34"));
  return found;
}

std::uintmax_t offset_of(const void* function, const Dl_info& info) {
  return reinterpret_cast<std::uintptr_t>(function) -
         reinterpret_cast<std::uintptr_t>(info.dli_fbase);
}

void write_owner(std::FILE* out, const void* function) {
  Dl_info info{};
  if (function == nullptr || dladdr(function, &info) == 0) {
    std::fprintf(out, " nobody 0");
    return;
  }
  const bool driver = std::strstr(info.dli_fname, "libcuda.so") != nullptr;
  std::fprintf(out, " %s %ju", driver ? "driver" : "library", offset_of(function, info));
}

CUresult witness(const char* name, void** out, int version, cuuint64_t flags,
                 CUdriverProcAddressQueryResult* status) {
  const CUresult result = from_library(name, out, version, flags, status);
  static std::FILE* file = std::fopen(std::getenv("WITNESS_FILE"), "w");
  std::fprintf(file, "ask '%s' %d %d %d", name, version, static_cast<int>(flags), result);
  write_owner(file, *out);
  void* real = nullptr;
  CUdriverProcAddressQueryResult unused{};
  from_driver(name, &real, version, flags, &unused);
  write_owner(file, real);
  std::fprintf(file, "\n");
  std::fflush(file);
  // The runtime asks for the function itself, and goes on with what it gets.
  if (*out != nullptr && std::strcmp(name, "cuGetProcAddress") == 0 && version >= 12000) {
    from_library = reinterpret_cast<GetProcAddress>(*out);
    *out = reinterpret_cast<void*>(&witness);
  }
  return result;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void* dlsym(void* handle,
                                                              const char* name) noexcept {
  static auto next = reinterpret_cast<Dlsym>(libc_dlsym()(RTLD_NEXT, "dlsym"));
  void* found = next(handle, name);
  if (found != nullptr && std::strcmp(name, "cuGetProcAddress_v2") == 0) {
    from_library = reinterpret_cast<GetProcAddress>(found);
    from_driver = reinterpret_cast<GetProcAddress>(libc_dlsym()(handle, name));
    return reinterpret_cast<void*>(&witness);
  }
  return found;
}
