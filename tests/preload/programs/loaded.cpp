// A program that loads the driver and looks its functions up: by library (argument "handle") or
// in everything loaded ("default", "self").
#include <dlfcn.h>

#include <string_view>

#include "tests/preload/programs/scenario.hpp"

int main(int, char** argv) {
  const std::string_view way = argv[1];
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  void* handle = library;
  if (way == "default") handle = RTLD_DEFAULT;
  if (way == "self") handle = dlopen(nullptr, RTLD_NOW);
  return scenario::run(
      scenario::find([&](const char* symbol, const char*, int) { return dlsym(handle, symbol); },
                     argv[2] != nullptr));
}
