// No driver: what look-ups of its functions answer in a program that never loads one.
#include <dlfcn.h>

#include <cstdio>
#include <initializer_list>

int main() {
  for (const char* name : {"cuMemAlloc_v2", "cuLaunchKernel", "nvmlDeviceGetMemoryInfo"}) {
    for (void* handle : {RTLD_DEFAULT, dlopen(nullptr, RTLD_NOW)}) {
      const bool found = dlsym(handle, name) != nullptr;
      const bool error = dlerror() != nullptr;
      std::printf("%s found %d error %d\n", name, found, error);
    }
  }
  return 0;
}
