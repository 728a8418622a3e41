// Asks cuGetProcAddress for every function of the driver in several versions and with all flags,
// and dlsym for every symbol; one line each: the request, the result, and whose function it is, by
// its offset in the driver or in the library that stands in front.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "shim/driver/cuda_abi.hpp"

namespace {

struct Row {
  const char* name;
  int version;
  const char* symbol;
};

constexpr Row kRows[] = {
#define SIM_API(name, version, per_thread, symbol) {#name, version, #symbol},
#include "tests/sim/api.inc"
#undef SIM_API
};

void print_owner(const void* function) {
  Dl_info info{};
  if (function == nullptr || dladdr(function, &info) == 0) {
    std::printf(" nobody\n");
    return;
  }
  const char* owner = std::strstr(info.dli_fname, "libcuda.so") != nullptr ? "driver" : "library";
  const auto offset =
      reinterpret_cast<std::uintptr_t>(function) - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  std::printf(" %s %ju\n", owner, static_cast<std::uintmax_t>(offset));
}

}  // namespace

int main() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  auto* ask =
      reinterpret_cast<decltype(&cuGetProcAddress_v2)>(dlsym(library, "cuGetProcAddress_v2"));
  auto* ask_v1 = reinterpret_cast<decltype(&cuGetProcAddress)>(dlsym(library, "cuGetProcAddress"));
  for (const Row& row : kRows) {
    std::printf("dlsym %s", row.symbol);
    print_owner(dlsym(library, row.symbol));
    for (const int version : {row.version - 1, row.version, row.version + 1, 13000, 99999}) {
      for (unsigned flags = 0; flags <= 4; ++flags) {
        void* function = nullptr;
        auto status = CU_GET_PROC_ADDRESS_SUCCESS;
        int result = ask(row.name, &function, version, flags, &status);
        std::printf("ask %s %d %u %d %d", row.name, version, flags, result, status);
        print_owner(function);
        function = nullptr;
        result = ask_v1(row.name, &function, version, flags);
        std::printf("ask1 %s %d %u %d", row.name, version, flags, result);
        print_owner(function);
      }
    }
  }
  for (const char* name : {"", "cuNope", "cuMemAlloc_v2", "cuLaunchKernel_ptsz"}) {
    void* function = nullptr;
    auto status = CU_GET_PROC_ADDRESS_SUCCESS;
    const int result = ask(name, &function, 12000, 0, &status);
    std::printf("ask '%s' %d %d", name, result, status);
    print_owner(function);
  }
  return 0;
}
