// The driver's own functions, resolved in the library that the program itself uses. What lies below
// the hooks calls these and never an exported name: no call of ours comes back through a hook.
#pragma once

#include <type_traits>

#include "shim/driver/cuda_abi.hpp"

// REQUIRED: without one of them the library passes everything through.
// OPTIONAL: null in drivers that lack it; the feature that needs it is off.
// Types are written out because the headers in use may be older than the newest of them.
#define KVCACHED_DRIVER_SYMBOLS(REQUIRED, OPTIONAL)                                       \
  REQUIRED(cuCtxGetCurrent, CUresult(CUcontext*))                                         \
  REQUIRED(cuCtxGetDevice, CUresult(CUdevice*))                                           \
  REQUIRED(cuCtxPopCurrent_v2, CUresult(CUcontext*))                                      \
  REQUIRED(cuCtxPushCurrent_v2, CUresult(CUcontext))                                      \
  REQUIRED(cuCtxSynchronize, CUresult())                                                  \
  REQUIRED(cuDeviceGetAttribute, CUresult(int*, CUdevice_attribute, CUdevice))            \
  REQUIRED(cuDeviceGetCount, CUresult(int*))                                              \
  REQUIRED(cuDevicePrimaryCtxGetState, CUresult(CUdevice, unsigned*, int*))               \
  REQUIRED(cuDevicePrimaryCtxRelease_v2, CUresult(CUdevice))                              \
  REQUIRED(cuDevicePrimaryCtxRetain, CUresult(CUcontext*, CUdevice))                      \
  REQUIRED(cuDeviceTotalMem_v2, CUresult(size_t*, CUdevice))                              \
  REQUIRED(cuEventCreate, CUresult(CUevent*, unsigned))                                   \
  REQUIRED(cuEventDestroy_v2, CUresult(CUevent))                                          \
  REQUIRED(cuEventQuery, CUresult(CUevent))                                               \
  REQUIRED(cuEventSynchronize, CUresult(CUevent))                                         \
  REQUIRED(cuMemAddressFree, CUresult(CUdeviceptr, size_t))                               \
  REQUIRED(cuMemAddressReserve,                                                           \
           CUresult(CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long))       \
  REQUIRED(cuMemCreate, CUresult(CUmemGenericAllocationHandle*, size_t,                   \
                                 const CUmemAllocationProp*, unsigned long long))         \
  REQUIRED(cuMemGetInfo_v2, CUresult(size_t*, size_t*))                                   \
  REQUIRED(cuMemMap, CUresult(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle,  \
                              unsigned long long))                                        \
  REQUIRED(cuMemRelease, CUresult(CUmemGenericAllocationHandle))                          \
  REQUIRED(cuMemSetAccess, CUresult(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t)) \
  REQUIRED(cuMemUnmap, CUresult(CUdeviceptr, size_t))                                     \
  REQUIRED(cuStreamGetCtx, CUresult(CUstream, CUcontext*))                                \
  REQUIRED(cuStreamIsCapturing, CUresult(CUstream, CUstreamCaptureStatus*))               \
  REQUIRED(cuStreamSynchronize, CUresult(CUstream))                                       \
  REQUIRED(cuThreadExchangeStreamCaptureMode, CUresult(CUstreamCaptureMode*))             \
  OPTIONAL(cuCtxRecordEvent, CUresult(CUcontext, CUevent))                                \
  OPTIONAL(cuDeviceGetUuid, CUresult(CUuuid*, CUdevice))                                  \
  OPTIONAL(cuDeviceGetUuid_v2, CUresult(CUuuid*, CUdevice))                               \
  OPTIONAL(cuFuncGetParamInfo, CUresult(CUfunction, size_t, size_t*, size_t*))            \
  OPTIONAL(cuKernelGetParamInfo, CUresult(CUkernel, size_t, size_t*, size_t*))

namespace kvcached::driver {

struct Symbols {
#define KVCACHED_MEMBER(symbol, ...) std::add_pointer_t<__VA_ARGS__> symbol = nullptr;
  KVCACHED_DRIVER_SYMBOLS(KVCACHED_MEMBER, KVCACHED_MEMBER)
#undef KVCACHED_MEMBER
};

// Remembers that `function` belongs to the driver that the program uses. The first call counts: one
// process, one driver. Takes no lock; any thread.
void note_driver(const void* function) noexcept;

// The functions of that driver, or of the one loaded as libcuda.so.1. Null while no driver is
// loaded, and for good when a required function is missing (one line in the log). Thread-safe.
const Symbols* symbols() noexcept;

}  // namespace kvcached::driver
