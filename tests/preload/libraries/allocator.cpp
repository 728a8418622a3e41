// link: -lcuda -s
// Allocates behind functions that nobody can name: static, without frame pointers, in a stripped
// library. Its exported functions are on the stack above them.
#include "shim/driver/cuda_abi.hpp"

#ifndef __clang__
#pragma GCC optimize("O2", "omit-frame-pointer")
#endif

namespace {

volatile int calls = 0;

// The counting after each call keeps it from being a jump.
__attribute__((noinline)) int allocate_inside(CUdeviceptr* out, std::size_t size) {
  const int result = cuMemAlloc_v2(out, size);
  calls = calls + 1;
  return result;
}

__attribute__((noinline)) int allocate_hidden(CUdeviceptr* out, std::size_t size) {
  volatile char room[200] = {};
  const int result = allocate_inside(out, size);
  calls = calls + 1 + room[100];
  return result;
}

}  // namespace

extern "C" {
#define EXPORTED __attribute__((visibility("default")))

EXPORTED int cache_allocate(CUdeviceptr* out, std::size_t size) {
  const int result = allocate_hidden(out, size);
  calls = calls + 1;
  return result;
}
EXPORTED int other_allocate(CUdeviceptr* out, std::size_t size) {
  const int result = allocate_hidden(out, size);
  calls = calls + 2;
  return result;
}
}
