// A program that asks cuGetProcAddress for everything, as a runtime does: generation 1 or 2, and
// the flags. The function it asks is itself an answer of cuGetProcAddress.
#include <dlfcn.h>

#include <cstdlib>

#include "tests/preload/programs/scenario.hpp"

namespace {

template <class F>
F found_by_name(const char* symbol) {
  return reinterpret_cast<F>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), symbol));
}

}  // namespace

int main(int, char** argv) {
  const bool first = std::atoi(argv[1]) == 1;
  const auto flags = static_cast<cuuint64_t>(std::atoi(argv[2]));
  void* asked = nullptr;
  if (first) {
    auto* ask = found_by_name<decltype(&cuGetProcAddress)>("cuGetProcAddress");
    ask("cuGetProcAddress", &asked, 11030, CU_GET_PROC_ADDRESS_DEFAULT);
  } else {
    auto* ask = found_by_name<decltype(&cuGetProcAddress_v2)>("cuGetProcAddress_v2");
    ask("cuGetProcAddress", &asked, 12000, CU_GET_PROC_ADDRESS_DEFAULT, nullptr);
  }
  const auto get = [&](const char*, const char* name, int version) {
    void* function = nullptr;
    if (first) {
      reinterpret_cast<decltype(&cuGetProcAddress)>(asked)(name, &function, version, flags);
    } else {
      CUdriverProcAddressQueryResult status{};
      reinterpret_cast<decltype(&cuGetProcAddress_v2)>(asked)(name, &function, version, flags,
                                                              &status);
    }
    return function;
  };
  return scenario::run(scenario::find(get, flags == 2));
}
