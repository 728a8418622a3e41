// Streams, events, launches and contexts, beyond the facts that a real GPU is tested for too.
#include <cuda.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "tests/sim/alone.hpp"

// The header has one of the two under this name, depending on a macro.
extern "C" CUresult cuMemsetD32Async_ptsz(CUdeviceptr to, unsigned value, size_t count,
                                          CUstream stream);
extern "C" CUresult cuStreamSynchronize_ptsz(CUstream stream);
extern "C" CUresult cuMemcpyDtoH_v2_ptds(void* to, CUdeviceptr from, size_t bytes);

namespace sim_test {
namespace {

using driver_facts::Event;
using driver_facts::Gate;
using driver_facts::kPage;
using driver_facts::Stream;
using driver_facts::word_at;
using namespace std::chrono_literals;

class Streams : public driver_facts::DriverFacts {
 protected:
  void SetUp() override {
    ASSERT_TRUE(gpu_.present);
    ASSERT_EQ(cuMemAlloc(&word_, 64), CUDA_SUCCESS);
    ASSERT_EQ(cuMemsetD32(word_, 0, 16), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  }
  void TearDown() override { EXPECT_EQ(cuMemFree(word_), CUDA_SUCCESS); }
  CUdeviceptr word_ = 0;
};

TEST_F(Streams, WorkRunsInOrderAndLater) {
  Gate gate;
  const Stream stream;
  gate.block(stream);
  stream.launch(gpu_.store, word_, 4);
  for (int i = 0; i < 100; ++i) stream.launch(gpu_.add, word_, 2);
  EXPECT_EQ(cuStreamQuery(stream.get()), CUDA_ERROR_NOT_READY);
  gate.open();
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 204U);
}

TEST_F(Streams, EventOrdersStreams) {
  Gate gate;
  const Stream first;
  const Stream second;
  const Event event;
  gate.block(first);
  first.launch(gpu_.store, word_, 5);
  ASSERT_EQ(cuEventRecord(event.get(), first.get()), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWaitEvent(second.get(), event.get(), 0), CUDA_SUCCESS);
  second.launch(gpu_.add, word_, 3);
  EXPECT_EQ(cuStreamQuery(second.get()), CUDA_ERROR_NOT_READY);
  gate.open();
  ASSERT_EQ(cuStreamSynchronize(second.get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 8U);
}

TEST_F(Streams, ElapsedTimeIsThatOfTheStream) {
  const Stream stream;
  CUevent begin = nullptr;
  CUevent end = nullptr;
  ASSERT_EQ(cuEventCreate(&begin, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuEventCreate(&end, 0), CUDA_SUCCESS);
  float milliseconds = -1;
  EXPECT_EQ(cuEventElapsedTime(&milliseconds, begin, end), CUDA_ERROR_INVALID_HANDLE);
  {
    Gate gate;
    ASSERT_EQ(cuEventRecord(begin, stream.get()), CUDA_SUCCESS);
    gate.block(stream);
    ASSERT_EQ(cuEventRecord(end, stream.get()), CUDA_SUCCESS);
    EXPECT_EQ(cuEventElapsedTime(&milliseconds, begin, end), CUDA_ERROR_NOT_READY);
  }
  ASSERT_EQ(cuEventSynchronize(end), CUDA_SUCCESS);
  EXPECT_EQ(cuEventElapsedTime(&milliseconds, begin, end), CUDA_SUCCESS);
  EXPECT_GT(milliseconds, 0);
  EXPECT_EQ(cuEventDestroy(begin), CUDA_SUCCESS);
  EXPECT_EQ(cuEventDestroy(end), CUDA_SUCCESS);
}

TEST_F(Streams, ThreadDefaultStreamIsItsOwn) {
  Gate gate;
  std::atomic<bool> blocked{false};
  std::thread other([&] {
    ASSERT_EQ(cuCtxSetCurrent(gpu_.context), CUDA_SUCCESS);
    CUdeviceptr unused = word_ + 4;
    ASSERT_EQ(cuStreamWaitValue32(CU_STREAM_PER_THREAD, gate.address(), 1, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuMemsetD32Async_ptsz(unused, 1, 1, nullptr), CUDA_SUCCESS);
    blocked = true;
    ASSERT_EQ(cuStreamSynchronize_ptsz(nullptr), CUDA_SUCCESS);
  });
  while (!blocked) std::this_thread::yield();
  // This thread's is free, though the other's is not.
  EXPECT_EQ(cuMemsetD32Async_ptsz(word_, 7, 1, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize_ptsz(nullptr), CUDA_SUCCESS);
  std::uint32_t seen = 0;
  EXPECT_EQ(cuMemcpyDtoH_v2_ptds(&seen, word_, 4), CUDA_SUCCESS);
  EXPECT_EQ(seen, 7U);
  gate.open();
  other.join();
  EXPECT_EQ(word_at(word_ + 4), 1U);
}

TEST_F(Streams, HostFunctionsRunInOrderAndMayNotCallTheDriver) {
  const Stream stream;
  struct Seen {
    std::atomic<int> calls{0};
    std::atomic<CUresult> inside{CUDA_SUCCESS};
    std::atomic<CUresult> status{CUDA_ERROR_UNKNOWN};
  } seen;
  ASSERT_EQ(cuLaunchHostFunc(
                stream.get(),
                [](void* data) {
                  auto& out = *static_cast<Seen*>(data);
                  ++out.calls;
                  std::size_t free = 0;
                  std::size_t total = 0;
                  out.inside = cuMemGetInfo(&free, &total);
                },
                &seen),
            CUDA_SUCCESS);
  ASSERT_EQ(cuStreamAddCallback(
                stream.get(),
                [](CUstream, CUresult status, void* data) {
                  auto& out = *static_cast<Seen*>(data);
                  ++out.calls;
                  out.status = status;
                },
                &seen, 0),
            CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(seen.calls, 2);
  EXPECT_EQ(seen.inside, CUDA_ERROR_NOT_PERMITTED);
  EXPECT_EQ(seen.status, CUDA_SUCCESS);
}

TEST_F(Streams, ArgumentsMayComeAsOneBuffer) {
  const Stream stream;
  struct {
    CUdeviceptr to;
    std::uint32_t value;
  } arguments{word_, 31};
  std::size_t size = 12;
  std::array<void*, 5> extra{CU_LAUNCH_PARAM_BUFFER_POINTER, &arguments,
                             CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
  ASSERT_EQ(cuLaunchKernel(gpu_.store, 1, 1, 1, 1, 1, 1, 0, stream.get(), nullptr, extra.data()),
            CUDA_SUCCESS);
  arguments.value = 0;  // they were copied
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 31U);
  size = 8;
  EXPECT_EQ(cuLaunchKernel(gpu_.store, 1, 1, 1, 1, 1, 1, 0, stream.get(), nullptr, extra.data()),
            CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Streams, ParametersLieAsPtxSays) {
  constexpr char kText[] = R"(.version 7.0
.target sm_52 // .entry not_one(.param .u64 x)
.visible .entry mixed(
  .param .u8 a, .param .align 16 .b8 b[24], /* c */ .param .u16 c,
  .param .u64 .ptr .global .align 1 d, .param .f32 e)
.maxntid 32, 1, 1
{ ret; }
.entry none() { ret; })";
  CUmodule module = nullptr;
  CUfunction mixed = nullptr;
  CUfunction none = nullptr;
  ASSERT_EQ(cuModuleLoadData(&module, kText), CUDA_SUCCESS);
  ASSERT_EQ(cuModuleGetFunction(&mixed, module, "mixed"), CUDA_SUCCESS);
  ASSERT_EQ(cuModuleGetFunction(&none, module, "none"), CUDA_SUCCESS);
  EXPECT_EQ(cuModuleGetFunction(&none, module, "not_one"), CUDA_ERROR_NOT_FOUND);
  constexpr std::size_t kPlaces[][2] = {{0, 1}, {16, 24}, {40, 2}, {48, 8}, {56, 4}};
  for (std::size_t i = 0; i < std::size(kPlaces); ++i) {
    std::size_t offset = 0;
    std::size_t bytes = 0;
    ASSERT_EQ(cuFuncGetParamInfo(mixed, i, &offset, &bytes), CUDA_SUCCESS);
    EXPECT_EQ(offset, kPlaces[i][0]);
    EXPECT_EQ(bytes, kPlaces[i][1]);
  }
  // Known, but there is no host function of that name.
  EXPECT_EQ(cuLaunchKernel(none, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND);
  EXPECT_EQ(cuModuleUnload(module), CUDA_SUCCESS);
  EXPECT_EQ(cuModuleLoadData(&module, "nonsense"), CUDA_ERROR_INVALID_PTX);
}

TEST_F(Streams, DestroyedStreamStillDoesItsWork) {
  Gate gate;
  Stream stream;
  gate.block(stream);
  stream.launch(gpu_.store, word_, 77);
  CUstream handle = stream.get();
  stream.destroy();
  EXPECT_EQ(cuStreamQuery(handle), CUDA_ERROR_INVALID_HANDLE);
  gate.open();
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 77U);
}

TEST_F(Streams, FreeingInStreamOrderWaitsForTheStream) {
  const std::size_t before = driver_facts::free_memory();
  CUdeviceptr address = 0;
  Gate gate;
  const Stream stream;
  gate.block(stream);
  ASSERT_EQ(cuMemAllocAsync(&address, 8 * kPage, stream.get()), CUDA_SUCCESS);
  stream.launch(gpu_.store, address, 1);
  ASSERT_EQ(cuMemFreeAsync(address, stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(driver_facts::free_memory() + 8 * kPage, before);
  gate.open();
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(driver_facts::free_memory(), before);
}

TEST_F(Streams, RowsAreCopiedAndFilled) {
  std::array<std::uint8_t, 16> from{};
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::uint8_t>(i);
  CUDA_MEMCPY2D rows{};
  rows.srcMemoryType = CU_MEMORYTYPE_HOST;
  rows.srcHost = from.data();
  rows.srcPitch = 4;
  rows.srcXInBytes = 1;
  rows.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  rows.dstDevice = word_;
  rows.dstPitch = 16;
  rows.WidthInBytes = 2;
  rows.Height = 3;
  ASSERT_EQ(cuMemcpy2D(&rows), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_ + 16), 0x0605U);
  ASSERT_EQ(cuMemsetD2D8(word_ + 32, 8, 0xee, 2, 2), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_ + 32), 0xeeeeU);
  EXPECT_EQ(word_at(word_ + 40), 0xeeeeU);
}

TEST_F(Streams, ContextsStackAndDieWithWhatTheyOwn) {
  const std::size_t before = driver_facts::free_memory();
  CUcontext made = nullptr;
  CUcontext now = nullptr;
  CUdeviceptr address = 0;
  CUstream stream = nullptr;
  ASSERT_EQ(cuCtxCreate(&made, nullptr, 0, gpu_.device), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAlloc(&address, 4 * kPage), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxGetCurrent(&now), CUDA_SUCCESS);
  EXPECT_EQ(now, made);
  ASSERT_EQ(cuCtxDestroy(made), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxGetCurrent(&now), CUDA_SUCCESS);
  EXPECT_EQ(now, gpu_.context);
  EXPECT_EQ(driver_facts::free_memory(), before);
  EXPECT_EQ(cuCtxSetCurrent(made), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
  std::thread([] {
    std::size_t free = 0;
    EXPECT_EQ(cuMemGetInfo(&free, &free), CUDA_ERROR_INVALID_CONTEXT);
  }).join();
}

TEST_F(Streams, SmallAllocationsShareAPage) {
  const std::size_t before = driver_facts::free_memory();
  std::array<CUdeviceptr, 100> all{};
  for (CUdeviceptr& address : all) ASSERT_EQ(cuMemAlloc(&address, 1000), CUDA_SUCCESS);
  EXPECT_GE(driver_facts::free_memory() + kPage, before);
  for (const CUdeviceptr address : all) {
    EXPECT_EQ(address % 256, 0U);
    EXPECT_EQ(cuMemFree(address), CUDA_SUCCESS);
  }
  EXPECT_EQ(driver_facts::free_memory(), before);
}

TEST_F(Streams, HostAccessCrashesAsUsualUninstrumented) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        CUdeviceptr address = 0;
        cuInit(0);
        cuMemAddressReserve(&address, kPage, 0, 0, 0);
        *reinterpret_cast<volatile int*>(address) = 1;
      },
      ::testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(Streams, SyncMemopsAreWaitedForBySynchronousCallsOnThatMemory) {
  CUdeviceptr marked = 0;
  ASSERT_EQ(cuMemAlloc(&marked, 4096), CUDA_SUCCESS);
  const Stream blocking(CU_STREAM_DEFAULT);
  // Whether `call` has waited for the stream that is blocked.
  const auto waits = [&](auto call) {
    Gate gate;
    gate.block(blocking);
    std::atomic<bool> over{false};
    std::thread opener([&] {
      for (int i = 0; i < 200 && !over; ++i) std::this_thread::sleep_for(1ms);
      gate.open();
    });
    EXPECT_EQ(call(), CUDA_SUCCESS);
    const bool done = cuStreamQuery(CU_STREAM_LEGACY) == CUDA_SUCCESS;
    over = true;
    opener.join();
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    return done;
  };
  const auto fill = [&] { return cuMemsetD8(marked, 1, 4096); };
  const auto set = [&](unsigned on) {
    return cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, marked + 8);
  };
  const auto read = [&] {
    unsigned out = 9;
    EXPECT_EQ(cuPointerGetAttribute(&out, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, marked), CUDA_SUCCESS);
    return out;
  };
  EXPECT_EQ(read(), 0U);
  EXPECT_FALSE(waits(fill));
  EXPECT_TRUE(waits([&] {  // what was begun before
    EXPECT_EQ(fill(), CUDA_SUCCESS);
    return set(1);
  }));
  EXPECT_EQ(read(), 1U);
  EXPECT_TRUE(waits(fill));
  EXPECT_TRUE(waits([&] { return cuMemcpyDtoD(word_, marked, 64); }));
  EXPECT_FALSE(waits([&] { return cuMemsetD8Async(marked, 1, 4096, CU_STREAM_LEGACY); }));
  EXPECT_FALSE(waits([&] { return cuMemsetD8(word_, 1, 64); }));
  EXPECT_EQ(set(0), CUDA_SUCCESS);
  EXPECT_EQ(read(), 0U);
  EXPECT_FALSE(waits(fill));
  EXPECT_EQ(cuMemFree(marked), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
