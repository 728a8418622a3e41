// What the driver says of mapped memory where it is asked about a pointer, and what asking does to
// a capture.
#include <thread>

#include "tests/gpu/driver_facts.hpp"

namespace driver_facts {
namespace {

CUresult set_sync_memops(CUdeviceptr at, unsigned on) {
  return cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at);
}

TEST_F(DriverFacts, SyncMemopsIsRefusedForMappedMemory) {
  Range range(kPage);
  const Memory memory(kPage);
  range.map(0, kPage, memory.handle());
  EXPECT_EQ(set_sync_memops(range.at(), 1), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(set_sync_memops(range.at(), 0), CUDA_ERROR_NOT_SUPPORTED);

  CUdeviceptr plain = 0;
  ASSERT_EQ(cuMemAlloc(&plain, kPage), CUDA_SUCCESS);
  for (const unsigned on : {1U, 0U, 1U}) {
    EXPECT_EQ(set_sync_memops(plain + 4096, on), CUDA_SUCCESS);
    unsigned long long read = 9;
    EXPECT_EQ(cuPointerGetAttribute(&read, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, plain), CUDA_SUCCESS);
    EXPECT_EQ(read & 1U, on);
  }
  EXPECT_EQ(cuMemFree(plain), CUDA_SUCCESS);
}

// Nor does it, in a relaxed thread, while another one captures.
TEST_F(DriverFacts, AskingWhetherADefaultStreamCapturesHarmsNoCapture) {
  for (const unsigned flags : {CU_STREAM_DEFAULT, CU_STREAM_NON_BLOCKING}) {
    const Stream stream(flags);
    ASSERT_EQ(cuStreamBeginCapture(stream.get(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
    const CUresult legacy =
        flags == CU_STREAM_DEFAULT ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_SUCCESS;
    const auto ask = [&] {
      const Relaxed relaxed;
      auto status = CU_STREAM_CAPTURE_STATUS_NONE;
      EXPECT_EQ(cuStreamIsCapturing(CU_STREAM_LEGACY, &status), legacy);
      EXPECT_EQ(cuStreamIsCapturing(CU_STREAM_PER_THREAD, &status), CUDA_SUCCESS);
      EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_NONE);
      EXPECT_EQ(cuStreamSynchronize(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
      if (legacy == CUDA_SUCCESS) {
        EXPECT_EQ(cuStreamSynchronize(CU_STREAM_LEGACY), CUDA_SUCCESS);
      }
    };
    ask();
    std::thread([&] {
      ASSERT_EQ(cuCtxSetCurrent(gpu_.context), CUDA_SUCCESS);
      ask();
    }).join();
    CUgraph graph = nullptr;
    EXPECT_EQ(cuStreamEndCapture(stream.get(), &graph), CUDA_SUCCESS);
    EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  }
}

TEST_F(DriverFacts, ARangeOverSeveralExtentsHasOneHandleForOtherDevices) {
  int supported = 0;
  ASSERT_EQ(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, gpu_.device),
            CUDA_SUCCESS);
  if (supported == 0) GTEST_SKIP() << "no dma-buf";
  CUmemAllocationProp wanted = properties();
  wanted.allocFlags.gpuDirectRDMACapable = 1;
  Range range(3 * kPage);
  for (const std::size_t offset : {std::size_t{0}, kPage}) {
    CUmemGenericAllocationHandle handle = 0;
    ASSERT_EQ(cuMemCreate(&handle, kPage, &wanted, 0), CUDA_SUCCESS);
    range.map(offset, kPage, handle);
    ASSERT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
  }
  const auto ask = [&](std::size_t offset, std::size_t bytes) {
    int descriptor = -1;
    const CUresult result = cuMemGetHandleForAddressRange(&descriptor, range.at(offset), bytes,
                                                          CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
    EXPECT_EQ(descriptor >= 0, result == CUDA_SUCCESS);
    if (descriptor >= 0) close(descriptor);
    return result;
  };
  EXPECT_EQ(ask(0, 2 * kPage), CUDA_SUCCESS);
  EXPECT_EQ(ask(kPage - 65536, 131072), CUDA_SUCCESS);
  EXPECT_EQ(ask(4096, 100), CUDA_ERROR_INVALID_VALUE);
  EXPECT_NE(ask(0, 3 * kPage), CUDA_SUCCESS) << "the last page is not mapped";
}

}  // namespace
}  // namespace driver_facts
