// What every door program does once it has the driver's functions, however it came by them: one
// buffer of 8 MiB, from allocation to a second free. One "key value" line for each answer.
#pragma once

#include <cstdio>
#include <vector>

#include "shim/driver/cuda_abi.hpp"

namespace scenario {

#define SCENARIO_FUNCTIONS(F)                                 \
  F(cuInit, cuInit, 2000)                                     \
  F(cuDeviceGet, cuDeviceGet, 2000)                           \
  F(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000) \
  F(cuCtxSetCurrent, cuCtxSetCurrent, 4000)                   \
  F(cuMemAlloc_v2, cuMemAlloc, 3020)                          \
  F(cuMemFree_v2, cuMemFree, 3020)                            \
  F(cuMemGetInfo_v2, cuMemGetInfo, 3020)                      \
  F(cuMemGetAddressRange_v2, cuMemGetAddressRange, 3020)      \
  F(cuPointerGetAttribute, cuPointerGetAttribute, 4000)       \
  F(cuPointerGetAttributes, cuPointerGetAttributes, 7000)     \
  F(cuIpcGetMemHandle, cuIpcGetMemHandle, 4010)               \
  F(cuMemRetainAllocationHandle, cuMemRetainAllocationHandle, 11000)

struct Driver {
#define SCENARIO_MEMBER(symbol, name, version) decltype(&::symbol) symbol = nullptr;
  SCENARIO_FUNCTIONS(SCENARIO_MEMBER)
#undef SCENARIO_MEMBER
  // These have a variant for per-thread default streams.
  decltype(&::cuMemsetD8_v2) cuMemsetD8 = nullptr;
  decltype(&::cuMemcpyHtoD_v2) cuMemcpyHtoD = nullptr;
  decltype(&::cuMemcpyDtoH_v2) cuMemcpyDtoH = nullptr;
};

// By name: get(symbol, name, version) answers an address.
template <class Get>
Driver find(Get get, bool per_thread) {
  Driver driver;
#define SCENARIO_FIND(symbol, name, version) \
  driver.symbol = reinterpret_cast<decltype(driver.symbol)>(get(#symbol, #name, version));
  SCENARIO_FUNCTIONS(SCENARIO_FIND)
#undef SCENARIO_FIND
  const auto both = [&](auto& function, const char* symbol, const char* variant, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
        get(per_thread ? variant : symbol, name, per_thread ? 7000 : 3020));
  };
  both(driver.cuMemsetD8, "cuMemsetD8_v2", "cuMemsetD8_v2_ptds", "cuMemsetD8");
  both(driver.cuMemcpyHtoD, "cuMemcpyHtoD_v2", "cuMemcpyHtoD_v2_ptds", "cuMemcpyHtoD");
  both(driver.cuMemcpyDtoH, "cuMemcpyDtoH_v2", "cuMemcpyDtoH_v2_ptds", "cuMemcpyDtoH");
  return driver;
}

inline void say(const char* key, unsigned long long value) { std::printf("%s %llu\n", key, value); }

inline void identity(const Driver& d, CUcontext context, CUdeviceptr at, std::size_t size) {
  CUdeviceptr base = 0;
  std::size_t length = 0;
  say("range", d.cuMemGetAddressRange_v2(&base, &length, at + size - 1));
  say("range_base", base == at);
  say("range_size", length);
  CUcontext owner = nullptr;
  say("attribute", d.cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, at + 4096));
  say("attribute_context", owner == context);
  CUdeviceptr start = 0;
  std::size_t whole = 0;
  unsigned type = 0;
  CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
                                 CU_POINTER_ATTRIBUTE_RANGE_SIZE, CU_POINTER_ATTRIBUTE_MEMORY_TYPE};
  void* data[] = {&start, &whole, &type};
  say("attributes", d.cuPointerGetAttributes(3, which, data, at + 4096));
  say("attributes_start", start == at);
  say("attributes_size", whole);
  say("attributes_type", type);
  CUmemGenericAllocationHandle handle = 0;
  say("retain", d.cuMemRetainAllocationHandle(&handle, reinterpret_cast<void*>(at)));
}

inline void contents(const Driver& d, CUdeviceptr at, std::size_t size) {
  say("memset", d.cuMemsetD8(at, 0x5a, size));
  std::vector<unsigned char> host(size, 0);
  host.front() = 1;
  say("copy_in", d.cuMemcpyHtoD(at + size / 2, host.data(), 1));
  say("copy_out", d.cuMemcpyDtoH(host.data(), at, size));
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned char expected = i == size / 2 ? 1 : 0x5a;
    wrong += host[i] != expected;
  }
  say("wrong_bytes", wrong);
}

inline int run(const Driver& d) {
  CUdevice device = 0;
  CUcontext context = nullptr;
  say("init", d.cuInit(0));
  say("device", d.cuDeviceGet(&device, 0));
  say("context", d.cuDevicePrimaryCtxRetain(&context, device));
  say("current", d.cuCtxSetCurrent(context));
  constexpr std::size_t kSize = 8 << 20;
  std::size_t free_before = 0;
  std::size_t free_after = 0;
  std::size_t total = 0;
  say("info", d.cuMemGetInfo_v2(&free_before, &total));
  CUdeviceptr at = 0;
  say("alloc", d.cuMemAlloc_v2(&at, kSize));
  d.cuMemGetInfo_v2(&free_after, &total);
  say("taken", free_before - free_after);
  identity(d, context, at, kSize);
  // The one answer by which an elastic buffer can be told.
  CUipcMemHandle ipc;
  say("elastic", d.cuIpcGetMemHandle(&ipc, at) == CUDA_ERROR_NOT_SUPPORTED);
  contents(d, at, kSize);
  say("free_interior", d.cuMemFree_v2(at + 4096));
  say("free", d.cuMemFree_v2(at));
  say("free_again", d.cuMemFree_v2(at));
  d.cuMemGetInfo_v2(&free_after, &total);
  say("still_taken", free_before - free_after);
  return 0;
}

}  // namespace scenario
