// The driver API as benchmarks use it: a failure is an exception that names the call.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "shim/include/kvcached.h"

namespace kvcached::bench {

inline constexpr std::size_t kMiB = 1U << 20;

inline void must(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  const char* name = nullptr;
  cuGetErrorName(result, &name);
  throw std::runtime_error(std::string(call) + ": " +
                           (name != nullptr ? name : std::to_string(static_cast<int>(result))));
}
inline void must(int result, const char* call) {
  if (result != KVCACHED_OK)
    throw std::runtime_error(std::string(call) + ": " + std::to_string(result));
}
#define MUST(call) ::kvcached::bench::must((call), #call)

// The first device, with its primary context current to the calling thread.
inline CUdevice open_gpu() {
  CUdevice device = 0;
  CUcontext context = nullptr;
  MUST(cuInit(0));
  MUST(cuDeviceGet(&device, 0));
  MUST(cuDevicePrimaryCtxRetain(&context, device));
  MUST(cuCtxSetCurrent(context));
  return device;
}

inline std::string gpu_name(CUdevice device) {
  char name[128] = {};
  MUST(cuDeviceGetName(name, sizeof name, device));
  return name;
}

// As the library's extents are: for RDMA, as memory of cuMemAlloc is.
inline CUmemAllocationProp prop_of(CUdevice device) {
  int rdma = 0;
  MUST(cuDeviceGetAttribute(&rdma, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED,
                            device));
  CUmemAllocationProp p{};
  p.allocFlags.gpuDirectRDMACapable = rdma != 0 ? 1 : 0;
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p.location.id = device;
  return p;
}

inline CUmemAccessDesc access_of(CUdevice device) {
  CUmemAccessDesc a{};
  a.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  a.location.id = device;
  a.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  return a;
}

}  // namespace kvcached::bench
