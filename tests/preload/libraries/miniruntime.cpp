// A small double of NVIDIA's runtime: finds the driver in the same steps and by the same requests,
// and has the few calls that the tests need. Built as a library, and into a program (static).
#include <dlfcn.h>

#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include "shim/driver/cuda_abi.hpp"

namespace {

struct Request {
  const char* name;
  int version;
  cuuint64_t flags;
};

// Everything in every generation and for both kinds of default stream, as the runtime asks.
constexpr Request kRequests[] = {
#define SIM_API(name, version, per_thread, symbol) \
  {#name, version, per_thread ? cuuint64_t{2} : cuuint64_t{0}},
#include "tests/sim/api.inc"
#undef SIM_API
};

class Driver {
 public:
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) return;
    auto* probe =
        reinterpret_cast<decltype(&cuGetProcAddress_v2)>(dlsym(library, "cuGetProcAddress_v2"));
    void* nothing = nullptr;
    probe("", &nothing, 0, 0, nullptr);
    void* asked = nullptr;
    probe("cuInit", &asked, 2000, 0, nullptr);
    const auto init = reinterpret_cast<decltype(&cuInit)>(asked);
    probe("cuGetProcAddress", &asked, 11030, 0, nullptr);
    probe("cuGetProcAddress", &asked, 12000, 0, nullptr);
    auto* ask = reinterpret_cast<decltype(&cuGetProcAddress_v2)>(asked);
    for (const Request& r : kRequests) {
      ask(r.name, &functions_[{r.name, r.version, r.flags}], r.version, r.flags, nullptr);
    }
    usable_ = init(0) == CUDA_SUCCESS;
  }

  template <class F>
  F* get(const char* name, int version, cuuint64_t flags = 0) const {
    return reinterpret_cast<F*>(functions_.at({name, version, flags}));
  }
  bool usable() const { return usable_; }

 private:
  struct Key {
    std::string name;
    int version;
    cuuint64_t flags;
    auto operator<=>(const Key&) const = default;
  };
  std::map<Key, void*> functions_;
  bool usable_ = false;
};

const Driver& driver() {
  static const Driver one;
  // As the runtime does: the first device's primary context, for every thread that has none.
  CUcontext context = nullptr;
  one.get<CUresult(CUcontext*)>("cuCtxGetCurrent", 4000)(&context);
  if (context == nullptr) {
    one.get<CUresult(CUcontext*, CUdevice)>("cuDevicePrimaryCtxRetain", 7000)(&context, 0);
    one.get<CUresult(CUcontext)>("cuCtxSetCurrent", 4000)(context);
  }
  return one;
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int miniMalloc(void** out, std::size_t size) {
  CUdeviceptr at = 0;
  const int result =
      driver().get<CUresult(CUdeviceptr*, std::size_t)>("cuMemAlloc", 3020)(&at, size);
  *out = reinterpret_cast<void*>(at);
  return result;
}

EXPORTED int miniFree(void* at) {
  return driver().get<CUresult(CUdeviceptr)>("cuMemFree", 3020)(reinterpret_cast<CUdeviceptr>(at));
}

EXPORTED int miniMemset(void* at, int value, std::size_t size, bool per_thread) {
  using F = CUresult(CUdeviceptr, unsigned char, std::size_t);
  auto* set =
      per_thread ? driver().get<F>("cuMemsetD8", 7000, 2) : driver().get<F>("cuMemsetD8", 3020);
  return set(reinterpret_cast<CUdeviceptr>(at), static_cast<unsigned char>(value), size);
}

EXPORTED int miniMemcpyOut(void* to, const void* from, std::size_t size, bool per_thread) {
  using F = CUresult(void*, CUdeviceptr, std::size_t);
  auto* copy =
      per_thread ? driver().get<F>("cuMemcpyDtoH", 7000, 2) : driver().get<F>("cuMemcpyDtoH", 3020);
  return copy(to, reinterpret_cast<CUdeviceptr>(from), size);
}

EXPORTED int miniIpc(void* at) {
  CUipcMemHandle handle;
  return driver().get<CUresult(CUipcMemHandle*, CUdeviceptr)>("cuIpcGetMemHandle", 4010)(
      &handle, reinterpret_cast<CUdeviceptr>(at));
}
