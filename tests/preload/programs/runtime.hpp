// What a program built on NVIDIA's runtime does first. The runtime accepts no driver but NVIDIA's:
// on a simulated one every call answers an error, after all look-ups were made.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdio>

inline int use_runtime() {
  void* at = nullptr;
  std::printf("malloc %d\n", cudaMalloc(&at, 8 << 20));
  std::printf("memset %d\n", cudaMemset(at, 7, 8 << 20));
  unsigned char last = 0;
  const void* end = static_cast<char*>(at) + (8 << 20) - 1;
  std::printf("memcpy %d\n", cudaMemcpy(&last, end, 1, cudaMemcpyDeviceToHost));
  std::printf("last %d\n", last);
  cudaIpcMemHandle_t handle;
  std::printf("elastic %d\n", cudaIpcGetMemHandle(&handle, at) == cudaErrorNotSupported);
  std::printf("free %d\n", cudaFree(at));
  return 0;
}
