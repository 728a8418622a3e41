// Asks a driver, whose path is the argument, for generations of functions; says whose it got.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

int main(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  using GetProcAddress = int (*)(const char*, void**, int, std::uint64_t, int*);
  auto* ask = reinterpret_cast<GetProcAddress>(dlsym(library, "cuGetProcAddress_v2"));
  const auto say = [&](const char* name, int version) {
    void* function = nullptr;
    Dl_info info{};
    ask(name, &function, version, 0, nullptr);
    dladdr(function, &info);
    const bool driver = std::strstr(info.dli_fname, "libcuda.so") != nullptr;
    std::printf("%s %d %s\n", name, version, driver ? "driver" : "library");
  };
  say("cuMemAlloc", 14000);
  say("cuMemAlloc", 13000);
  say("cuMemFree", 13000);
  return 0;
}
