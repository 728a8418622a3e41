// The double of the runtime as a shared library: its path, then "per-thread" or nothing.
#include <dlfcn.h>

#include "tests/preload/programs/miniruntime.hpp"

int main(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  return use_miniruntime([&](const char* name) { return dlsym(library, name); },
                         argv[2] != nullptr);
}
