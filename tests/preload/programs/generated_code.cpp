// link: -lcuda
// Calls code that was written to memory, then loads a library whose functions lie at the same
// addresses: the library's, of which the code was a copy. Says what became elastic. Argument: it.
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

namespace {

using Allocate = int (*)(CUdeviceptr*, std::size_t);

struct Image {
  ElfW(Addr) base = 0;  // of the library that is looked for
  std::size_t extent = 0;
  std::vector<char> bytes;
};

int copy_image(dl_phdr_info* info, std::size_t, void* out) {
  auto& image = *static_cast<Image*>(out);
  if (info->dlpi_addr != image.base) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD) continue;
    image.extent = std::max<std::size_t>(image.extent, part.p_vaddr + part.p_memsz);
    image.bytes.resize(image.extent);
    std::memcpy(&image.bytes[part.p_vaddr], reinterpret_cast<char*>(image.base + part.p_vaddr),
                part.p_memsz);
  }
  return 1;
}

Allocate load(void** library, const char* file) {
  *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  return *library == nullptr ? nullptr
                             : reinterpret_cast<Allocate>(dlsym(*library, "cache_allocate"));
}

void show(const char* who, Allocate allocate) {
  CUdeviceptr at = 0;
  CUipcMemHandle handle;
  const int result = allocate(&at, 8 << 20);
  std::printf("%s %d elastic %d\n", who, result,
              cuIpcGetMemHandle(&handle, at) == CUDA_ERROR_NOT_SUPPORTED);
}

}  // namespace

int main(int, char** arguments) {
  use_gpu();
  void* library = nullptr;
  Allocate allocate = load(&library, arguments[1]);
  Dl_info info{};
  if (allocate == nullptr || dladdr(reinterpret_cast<void*>(allocate), &info) == 0) return 1;
  Image image;
  image.base = reinterpret_cast<ElfW(Addr)>(info.dli_fbase);
  dl_iterate_phdr(copy_image, &image);
  dlclose(library);
  void* const place = mmap(info.dli_fbase, image.extent, PROT_READ | PROT_WRITE | PROT_EXEC,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (place != info.dli_fbase) return 2;
  std::memcpy(place, image.bytes.data(), image.extent);
  show("generated", allocate);
  munmap(place, image.extent);
  const bool same = load(&library, arguments[1]) == allocate;
  std::printf("same addresses %d\n", same);
  if (same) show("library", allocate);
  return 0;
}
