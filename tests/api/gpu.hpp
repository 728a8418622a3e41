// Small helpers for tests that drive a GPU through the driver API, as any program would.
#pragma once

#include <cuda.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "shim/include/kvcached.h"

namespace kvcached::test {

inline constexpr std::size_t kMiB = 1U << 20;

// A primary context on device 0 for the length of a test.
class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cuInit(0), CUDA_SUCCESS);
    ASSERT_EQ(cuDeviceGet(&device_, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuDevicePrimaryCtxRetain(&context_, device_), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
    ASSERT_TRUE(KVCACHED_PRESENT()) << "the library is not preloaded";
  }
  void TearDown() override {
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    for (const CUdeviceptr p : allocations_) EXPECT_EQ(cuMemFree(p), CUDA_SUCCESS);
    EXPECT_EQ(cuDevicePrimaryCtxRelease(device_), CUDA_SUCCESS);
  }

  CUdeviceptr plain(std::size_t bytes) {
    CUdeviceptr p = 0;
    EXPECT_EQ(cuMemAlloc(&p, bytes), CUDA_SUCCESS);
    allocations_.push_back(p);
    return p;
  }
  CUdeviceptr elastic(std::size_t bytes) {
    EXPECT_EQ(kvcached_tag_push("kv"), KVCACHED_OK);
    const CUdeviceptr p = plain(bytes);
    EXPECT_EQ(kvcached_tag_pop(), KVCACHED_OK);
    return p;
  }
  void free_now(CUdeviceptr p) {
    EXPECT_EQ(cuMemFree(p), CUDA_SUCCESS);
    std::erase(allocations_, p);
  }

  static void fill(CUdeviceptr at, std::size_t bytes, unsigned char value) {
    ASSERT_EQ(cuMemsetD8(at, value, bytes), CUDA_SUCCESS);
  }
  // True when every byte of the range has the value.
  static bool holds(CUdeviceptr at, std::size_t bytes, unsigned char value) {
    std::vector<unsigned char> host(bytes);
    EXPECT_EQ(cuMemcpyDtoH(host.data(), at, bytes), CUDA_SUCCESS);
    for (const unsigned char c : host)
      if (c != value) return false;
    return true;
  }
  static std::size_t resident(CUdeviceptr base, std::size_t offset, std::size_t bytes) {
    std::size_t out = 0;
    EXPECT_EQ(kvcached_resident(base, offset, bytes, &out), KVCACHED_OK);
    return out;
  }

  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  std::vector<CUdeviceptr> allocations_;
};

// Waits until `done` holds, for things that the agent's thread does in its own time.
template <class F>
bool eventually(F done) {
  for (int i = 0; i < 1000; ++i) {
    if (done()) return true;
    struct timespec ts = {0, 10'000'000};
    nanosleep(&ts, nullptr);
  }
  return done();
}

}  // namespace kvcached::test
