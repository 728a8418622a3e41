// link: -lcuda -rdynamic
// Says what RTLD_NEXT and RTLD_DEFAULT find for the program and for preloaded libraries.
#include <dlfcn.h>

#include <cstdio>

#include "shim/driver/cuda_abi.hpp"

namespace {

template <class R>
R call(const char* name) {
  return reinterpret_cast<R (*)()>(dlsym(RTLD_DEFAULT, name))();
}

const char* text(const char* name) { return call<const char*>(name); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* which() { return "program"; }

int main() {
  auto next = reinterpret_cast<const char* (*)()>(dlsym(RTLD_NEXT, "which"));
  std::printf("program_next %s\n", next());
  std::printf("wrapper_next %s\n", text("which_after_wrapper"));
  std::printf("wrapper_default %s\n", text("which_by_default"));
  std::printf("missing %d\n", dlsym(RTLD_NEXT, "which_after_all") == nullptr);
  std::printf("missing_error %d\n", dlerror() != nullptr);
  CUdevice device = 0;
  CUcontext context = nullptr;
  cuInit(0);
  cuDeviceGet(&device, 0);
  cuDevicePrimaryCtxRetain(&context, device);
  cuCtxSetCurrent(context);
  CUdeviceptr at = 0;
  std::printf("alloc %d\n", cuMemAlloc_v2(&at, 8 << 20));
  CUipcMemHandle handle;
  std::printf("elastic %d\n", cuIpcGetMemHandle(&handle, at) == CUDA_ERROR_NOT_SUPPORTED);
  std::printf("wrapper_calls %d\n", call<int>("wrapper_calls"));
  std::printf("fill %d\n", cuMemsetD8_v2(at, 1, 8 << 20));
  std::printf("wrapper_fills %d\n", call<int>("wrapper_fills"));
  // Looked up in the driver itself, functions are the driver's, whatever else has such a name.
  void* driver = dlopen("libcuda.so.1", RTLD_NOW);
  CUdeviceptr other = 0;
  auto* alloc = reinterpret_cast<decltype(&cuMemAlloc_v2)>(dlsym(driver, "cuMemAlloc_v2"));
  auto* fill = reinterpret_cast<decltype(&cuMemsetD8_v2)>(dlsym(driver, "cuMemsetD8_v2"));
  std::printf("driver_alloc %d\n", alloc(&other, 8 << 20));
  std::printf("driver_fill %d\n", fill(other, 1, 8 << 20));
  std::printf("calls_after %d\n", call<int>("wrapper_calls"));
  std::printf("fills_after %d\n", call<int>("wrapper_fills"));
  std::printf("free %d\n", cuMemFree_v2(at));
  return 0;
}
