// What the programs of this folder share: errors end them, and a digest stands for a buffer.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

inline void must(cudaError_t result, const char* what, int line) {
  if (result == cudaSuccess) return;
  std::printf("line %d: %s: %s\n", line, what, cudaGetErrorName(result));
  std::exit(1);
}
inline void must(CUresult result, const char* what, int line) {
  if (result == CUDA_SUCCESS) return;
  const char* name = "?";
  cuGetErrorName(result, &name);
  std::printf("line %d: %s: %s\n", line, what, name);
  std::exit(1);
}
#define MUST(call) must(call, #call, __LINE__)

constexpr std::size_t kMiB = std::size_t{1} << 20;

inline std::uint64_t digest_of(const void* data, std::size_t size) {
  std::uint64_t hash = 14695981039346656037ULL;
  const auto* bytes = static_cast<const unsigned char*>(data);
  std::size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    std::uint64_t word;
    __builtin_memcpy(&word, bytes + i, 8);
    hash = (hash ^ word) * 1099511628211ULL;
    hash ^= hash >> 29;
  }
  for (; i < size; ++i) hash = (hash ^ bytes[i]) * 1099511628211ULL;
  return hash;
}

// Waits for all work, then reads the buffer.
inline void show_digest(const char* what, const void* device, std::size_t size) {
  MUST(cudaDeviceSynchronize());
  std::vector<unsigned char> host(size);
  MUST(cudaMemcpy(host.data(), device, size, cudaMemcpyDeviceToHost));
  std::printf("%s %016llx\n", what, static_cast<unsigned long long>(digest_of(host.data(), size)));
}

inline void say(const char* what, cudaError_t result) {
  std::printf("%s: %s\n", what, cudaGetErrorName(result));
}
inline void say(const char* what, CUresult result) {
  const char* name = "?";
  cuGetErrorName(result, &name);
  std::printf("%s: %s\n", what, name);
}

inline std::uint32_t next_random(std::uint32_t& state) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

#ifdef __CUDACC__
template <class T>
__global__ void fill(T* at, std::size_t n, std::uint32_t seed) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    x ^= x >> 15;
    at[i] = static_cast<T>(x * 2246822519u);
  }
}
template <class T>
__global__ void add(T* to, const T* a, const T* b, std::size_t n) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n; i += step)
    to[i] = a[i] + b[i];
}
#endif
