// What most programs begin with.
#pragma once

#include "shim/driver/cuda_abi.hpp"

// The primary context of the first GPU, current in the calling thread.
inline CUcontext use_gpu() {
  CUcontext context = nullptr;
  cuInit(0);
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxSetCurrent(context);
  return context;
}
