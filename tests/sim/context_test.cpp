// What ends with contexts, threads and faults.
#include <atomic>
#include <chrono>
#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <thread>

#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

using driver_facts::Gpu;
using driver_facts::kPage;
using driver_facts::Range;
using driver_facts::Stream;
using driver_facts::word_at;

std::size_t threads() {
  const std::filesystem::directory_iterator all("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

class Contexts : public driver_facts::DriverFacts {
 protected:
  void SetUp() override { ASSERT_TRUE(gpu_.present); }
};

TEST_F(Contexts, StreamOfAThreadEndsWithIt) {
  const std::size_t before = threads();
  for (int i = 0; i < 20; ++i) {
    std::thread([this] {
      ASSERT_EQ(cuCtxSetCurrent(gpu_.context), CUDA_SUCCESS);
      const auto nothing = [](void* /*data*/) {};
      ASSERT_EQ(cuLaunchHostFunc(CU_STREAM_PER_THREAD, nothing, nullptr), CUDA_SUCCESS);
      ASSERT_EQ(cuStreamSynchronize(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
    }).join();
  }
  for (int i = 0; i < 5000 && threads() > before; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_LE(threads(), before);
}

TEST_F(Contexts, DestroyedContextTakesItsCapturesAlong) {
  CUcontext made = nullptr;
  CUstream stream = nullptr;
  ASSERT_EQ(cuCtxCreate(&made, nullptr, 0, gpu_.device), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxDestroy(made), CUDA_SUCCESS);
  CUdeviceptr address = 0;
  EXPECT_EQ(cuMemAlloc(&address, 4), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(address), CUDA_SUCCESS);
}

TEST_F(Contexts, PageableCopyIsLegalBesideACapture) {
  CUdeviceptr address = 0;
  ASSERT_EQ(cuMemAlloc(&address, 4), CUDA_SUCCESS);
  const Stream stream;
  const Stream other;
  std::uint32_t host = 12;
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamBeginCapture(stream.get(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyHtoDAsync(address, &host, 4, other.get()), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamEndCapture(stream.get(), &graph), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  EXPECT_EQ(word_at(address), 12U);
  EXPECT_EQ(cuMemFree(address), CUDA_SUCCESS);
}

TEST_F(Contexts, LostContextSkipsItsWorkAndCanBeReset) { EXPECT_TRUE(passes_alone("Reset", {})); }

TEST(Alone, DISABLED_Reset) {
  const Gpu& gpu = Gpu::get();
  ASSERT_TRUE(gpu.present);
  const std::size_t before = driver_facts::free_memory();
  CUdeviceptr plain = 0;
  ASSERT_EQ(cuMemAlloc(&plain, kPage), CUDA_SUCCESS);
  const Range hole(kPage);
  CUstream stream = nullptr;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  struct Seen {
    std::atomic<CUresult> status{CUDA_SUCCESS};
    std::atomic<bool> called{false};
  } seen;
  // Not a Gate: a lost context does not free it.
  static std::uint32_t gate = 0;
  const auto gate_address = reinterpret_cast<CUdeviceptr>(&gate);
  ASSERT_EQ(cuStreamWaitValue32(stream, gate_address, 1, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuMemsetD32Async(hole.at(), 1, 1, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuLaunchHostFunc(
                stream, [](void* data) { static_cast<Seen*>(data)->called = true; }, &seen),
            CUDA_SUCCESS);
  ASSERT_EQ(
      cuStreamAddCallback(
          stream,
          [](CUstream, CUresult status, void* data) { static_cast<Seen*>(data)->status = status; },
          &seen, 0),
      CUDA_SUCCESS);
  __atomic_store_n(&gate, 1U, __ATOMIC_SEQ_CST);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_FALSE(seen.called);
  EXPECT_EQ(seen.status, CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cuStreamCreate(&stream, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
  ASSERT_EQ(cuDevicePrimaryCtxReset(gpu.device), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc(&plain, kPage), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  CUcontext context = nullptr;
  ASSERT_EQ(cuDevicePrimaryCtxRetain(&context, gpu.device), CUDA_SUCCESS);
  EXPECT_EQ(driver_facts::free_memory(), before);
  EXPECT_EQ(cuMemAlloc(&plain, kPage), CUDA_SUCCESS);
}

TEST_F(Contexts, FaultsOfTheProgramGoToItsOwnHandler) {
  EXPECT_TRUE(passes_alone("OwnHandler", {}));
}

sigjmp_buf own_handler_left;

TEST(Alone, DISABLED_OwnHandler) {
  struct sigaction action {};
  action.sa_handler = [](int) { siglongjmp(own_handler_left, 1); };
  action.sa_flags = SA_NODEFER;
  ASSERT_EQ(sigaction(SIGSEGV, &action, nullptr), 0);
  const Gpu& gpu = Gpu::get();
  ASSERT_TRUE(gpu.present);
  const Range hole(kPage);
  volatile bool handled = false;
  if (sigsetjmp(own_handler_left, 1) == 0) {
    *reinterpret_cast<volatile int*>(hole.at()) = 1;
  } else {
    handled = true;
  }
  EXPECT_TRUE(handled);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

// A leak checker would miss, in the child, the threads that the parent has.
TEST_F(Contexts, ForkedChildEndsInGoodOrderUninstrumented) {
  // Its thread used the driver, so something of that thread ends in the child too.
  ASSERT_EQ(cuStreamSynchronize(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) std::exit(cuInit(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
