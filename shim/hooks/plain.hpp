// How the program gets plain memory where the pool may have to make room for it.
#pragma once

#include "shim/driver/cuda_abi.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {

// Takes memory of the device by `next()`, at most `most` bytes: what is promised to unclaimed
// buffers stays free. Where the GPU has none, once more if the pool could make room for `least`.
// Without a process, `next()` alone.
template <class F>
CUresult take_plain(Process* process, driver::DeviceId device, Bytes most, Bytes least,
                    F next) noexcept {
  if (process == nullptr) return next();
  process->keep_promises(device, most);
  const CUresult result = next();
  const bool again = result == CUDA_ERROR_OUT_OF_MEMORY && process->make_room(device, least);
  return again ? next() : result;
}

}  // namespace kvcached::hooks
