// Facts about the driver that the design stands on. They hold on a real GPU and on the simulated
// one.
#include "tests/gpu/driver_facts.hpp"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <thread>

namespace driver_facts {
namespace {

using namespace std::chrono_literals;

TEST_F(DriverFacts, GranularityIsTwoMebibytes) {
  const CUmemAllocationProp wanted = properties();
  for (const auto option :
       {CU_MEM_ALLOC_GRANULARITY_MINIMUM, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED}) {
    std::size_t bytes = 0;
    ASSERT_EQ(cuMemGetAllocationGranularity(&bytes, &wanted, option), CUDA_SUCCESS);
    EXPECT_EQ(bytes, kPage);
  }
  CUmemGenericAllocationHandle handle = 0;
  EXPECT_EQ(cuMemCreate(&handle, kPage / 2, &wanted, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(DriverFacts, FreshPageIsZeroThoughItsMemoryWasUsed) {
  constexpr std::size_t kBytes = 16 * kPage;
  for (int round = 0; round < 3; ++round) {
    Range range(kBytes);
    const Memory memory(kBytes);
    range.map(0, kBytes, memory.handle());
    std::vector<std::uint64_t> seen(kBytes / 8, 1);
    ASSERT_EQ(cuMemcpyDtoH(seen.data(), range.at(), kBytes), CUDA_SUCCESS);
    EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](auto word) { return word == 0; }));
    ASSERT_EQ(cuMemsetD8(range.at(), 0xa5, kBytes), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  }
}

TEST_F(DriverFacts, MuchMoreAddressesThanMemoryCanBeReserved) {
  const Range range(std::size_t{256} << 30U);
  EXPECT_NE(range.at(), 0U);
  EXPECT_EQ(range.at() % kPage, 0U);
}

TEST_F(DriverFacts, MappingIsAllOrNothing) {
  Range range(4 * kPage);
  const Memory memory(2 * kPage);
  EXPECT_EQ(cuMemMap(range.at(), kPage, kPage, memory.handle(), 0), CUDA_ERROR_NOT_SUPPORTED);
  range.map(0, 2 * kPage, memory.handle());
  EXPECT_EQ(cuMemUnmap(range.at(), kPage), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemUnmap(range.at(kPage), kPage), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(allow(range.at(), kPage), CUDA_ERROR_INVALID_VALUE);
  const Memory other(2 * kPage);
  EXPECT_EQ(cuMemMap(range.at(), 2 * kPage, 0, other.handle(), 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemMap(range.at(kPage), 2 * kPage, 0, other.handle(), 0), CUDA_ERROR_INVALID_VALUE);
  // What was refused changed nothing.
  ASSERT_EQ(cuMemsetD32(range.at(), 7, 2 * kPage / 4), CUDA_SUCCESS);
  EXPECT_EQ(word_at(range.at(2 * kPage - 4)), 7U);
}

TEST_F(DriverFacts, OneCallServesSeveralMappings) {
  Range range(3 * kPage);
  const Memory first(kPage);
  const Memory second(2 * kPage);
  ASSERT_EQ(cuMemMap(range.at(), kPage, 0, first.handle(), 0), CUDA_SUCCESS);
  ASSERT_EQ(cuMemMap(range.at(kPage), 2 * kPage, 0, second.handle(), 0), CUDA_SUCCESS);
  EXPECT_EQ(allow(range.at(), 3 * kPage), CUDA_SUCCESS);
  EXPECT_EQ(cuMemUnmap(range.at(), 3 * kPage), CUDA_SUCCESS);
}

TEST_F(DriverFacts, FillsAndCopiesCrossMappings) {
  Range range(4 * kPage);
  const Memory first(kPage);
  const Memory second(kPage);
  range.map(0, kPage, first.handle());
  range.map(kPage, kPage, second.handle());
  constexpr std::size_t kBytes = 4096;
  const CUdeviceptr middle = range.at(kPage - kBytes / 2);
  ASSERT_EQ(cuMemsetD8(middle, 0x5a, kBytes), CUDA_SUCCESS);
  CUdeviceptr plain = 0;
  ASSERT_EQ(cuMemAlloc(&plain, kBytes), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoD(plain, middle, kBytes), CUDA_SUCCESS);
  std::vector<std::uint8_t> seen(kBytes);
  EXPECT_EQ(cuMemcpyDtoH(seen.data(), plain, kBytes), CUDA_SUCCESS);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 0x5a), static_cast<long>(kBytes));
  seen.assign(kBytes, 0x3c);
  EXPECT_EQ(cuMemcpyHtoD(middle, seen.data(), kBytes), CUDA_SUCCESS);
  EXPECT_EQ(word_at(range.at(kPage)), 0x3c3c3c3cU);
  EXPECT_EQ(cuMemFree(plain), CUDA_SUCCESS);
}

TEST_F(DriverFacts, OneExtentAtSeveralAddressesIsTheSameMemory) {
  constexpr std::size_t kTimes = 8;
  Range range(kTimes * kPage);
  const Memory memory(kPage);
  const std::size_t before = free_memory();
  for (std::size_t i = 0; i < kTimes; ++i) range.map(i * kPage, kPage, memory.handle());
  EXPECT_GE(free_memory() + kPage, before);  // aliases are free
  const Stream stream;
  stream.launch(gpu_.store, range.at(40), 11);
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  for (std::size_t i = 0; i < kTimes; ++i) EXPECT_EQ(word_at(range.at(i * kPage + 40)), 11U);
}

TEST_F(DriverFacts, ReleasedMemoryLivesUntilItsLastMappingGoes) {
  constexpr std::size_t kBytes = 32 * kPage;
  Range range(2 * kBytes);
  const std::size_t before = free_memory();
  Memory memory(kBytes);
  range.map(0, kBytes, memory.handle());
  range.map(kBytes, kBytes, memory.handle());
  ASSERT_EQ(cuMemsetD32(range.at(), 5, 1), CUDA_SUCCESS);
  memory.release();
  EXPECT_LE(free_memory() + kBytes, before);
  EXPECT_EQ(word_at(range.at(kBytes)), 5U);
  CUmemGenericAllocationHandle again = 0;
  ASSERT_EQ(cuMemRetainAllocationHandle(&again, reinterpret_cast<void*>(range.at(4096))),
            CUDA_SUCCESS);
  range.unmap_last();
  range.unmap_last();
  EXPECT_LE(free_memory() + kBytes, before);
  ASSERT_EQ(cuMemRelease(again), CUDA_SUCCESS);
  EXPECT_GE(free_memory() + kPage, before);
}

TEST_F(DriverFacts, MappedPointerDiffersFromAnAllocatedOne) {
  Range range(4 * kPage);
  const Memory first(kPage);
  const Memory second(2 * kPage);
  range.map(kPage, kPage, first.handle());
  range.map(2 * kPage, 2 * kPage, second.handle());
  CUdeviceptr base = 0;
  std::size_t bytes = 0;
  ASSERT_EQ(cuMemGetAddressRange(&base, &bytes, range.at(kPage + 100)), CUDA_SUCCESS);
  EXPECT_EQ(base, range.at(kPage));  // this mapping alone
  EXPECT_EQ(bytes, kPage);
  CUipcMemHandle ipc{};
  EXPECT_EQ(cuIpcGetMemHandle(&ipc, range.at(kPage)), CUDA_ERROR_INVALID_VALUE);
  CUcontext context = gpu_.context;
  ASSERT_EQ(cuPointerGetAttribute(&context, CU_POINTER_ATTRIBUTE_CONTEXT, range.at(kPage)),
            CUDA_SUCCESS);
  EXPECT_EQ(context, nullptr);
  EXPECT_NE(cuMemFree(range.at(kPage)), CUDA_SUCCESS);
}

TEST_F(DriverFacts, ReadOnlyAccessIsAccepted) {
  Range range(kPage);
  const Memory memory(kPage);
  range.map(0, kPage, memory.handle());
  ASSERT_EQ(cuMemsetD32(range.at(), 9, 1), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(allow(range.at(), kPage, CU_MEM_ACCESS_FLAGS_PROT_READ), CUDA_SUCCESS);
  EXPECT_EQ(word_at(range.at()), 9U);
}

TEST_F(DriverFacts, FullMemoryRefusesAndBreaksNothing) {
  const std::size_t before = free_memory();
  const std::size_t piece = std::max(before / 8 / kPage, std::size_t{1}) * kPage;
  const CUmemAllocationProp wanted = properties();
  std::vector<CUmemGenericAllocationHandle> handles;
  CUresult result = CUDA_SUCCESS;
  for (std::size_t i = 0; i <= before / piece && result == CUDA_SUCCESS; ++i) {
    CUmemGenericAllocationHandle handle = 0;
    result = cuMemCreate(&handle, piece, &wanted, 0);
    if (result == CUDA_SUCCESS) handles.push_back(handle);
  }
  EXPECT_EQ(result, CUDA_ERROR_OUT_OF_MEMORY);
  CUdeviceptr plain = 0;
  EXPECT_EQ(cuMemAlloc(&plain, before), CUDA_ERROR_OUT_OF_MEMORY);
  for (const CUmemGenericAllocationHandle handle : handles) cuMemRelease(handle);
  EXPECT_EQ(cuMemAlloc(&plain, piece), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(plain), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(DriverFacts, PlainAllocationIsFreedOnceAndByItsStart) {
  CUdeviceptr plain = 0;
  EXPECT_EQ(cuMemAlloc(&plain, 0), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cuMemAlloc(&plain, 3 * kPage + 1), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(plain + 512), CUDA_ERROR_INVALID_VALUE);
  CUdeviceptr base = 0;
  std::size_t bytes = 0;
  EXPECT_EQ(cuMemGetAddressRange(&base, &bytes, plain + 512), CUDA_SUCCESS);
  EXPECT_EQ(base, plain);
  EXPECT_GE(bytes, 3 * kPage + 1);
  EXPECT_EQ(cuMemFree(plain), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(plain), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(DriverFacts, MappingDoesNotWaitForWorkThatRuns) {
  Range range(2 * kPage);
  const Memory memory(kPage);
  Gate gate;
  const Stream stream;
  gate.block(stream);
  range.map(0, kPage, memory.handle());
  range.unmap_last();
  const Memory second(kPage);
  EXPECT_EQ(cuStreamQuery(stream.get()), CUDA_ERROR_NOT_READY);
  gate.open();
  EXPECT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
}

TEST_F(DriverFacts, StreamWaitsWhileThePageOfItsNextKernelIsMapped) {
  Range range(kPage);
  const Memory memory(kPage);
  Gate gate;
  const Stream stream;
  gate.block(stream);
  stream.launch(gpu_.store, range.at(8), 23);
  stream.launch(gpu_.add, range.at(8), 19);
  range.map(0, kPage, memory.handle());
  gate.open();
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(range.at(8)), 42U);
}

TEST_F(DriverFacts, ContextEventCoversEveryStreamAndNothingLater) {
  Gate first;
  Gate second;
  Gate later;
  const Stream one;
  const Stream two;
  const Event event;
  first.block(one);
  second.block(two);
  ASSERT_EQ(cuCtxRecordEvent(gpu_.context, event.get()), CUDA_SUCCESS);
  later.block(one);
  EXPECT_EQ(cuEventQuery(event.get()), CUDA_ERROR_NOT_READY);
  first.open();
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(cuEventQuery(event.get()), CUDA_ERROR_NOT_READY);
  second.open();
  EXPECT_EQ(cuEventSynchronize(event.get()), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(one.get()), CUDA_ERROR_NOT_READY);
}

TEST_F(DriverFacts, LegacyStreamWaitsForBlockingStreamsOnly) {
  CUdeviceptr word = 0;
  ASSERT_EQ(cuMemAlloc(&word, 4), CUDA_SUCCESS);
  {
    Gate gate;
    const Stream free;
    const Stream blocking(CU_STREAM_DEFAULT);
    gate.block(free);
    ASSERT_EQ(cuMemsetD32(word, 1, 1), CUDA_SUCCESS);
    EXPECT_EQ(word_at(word), 1U);  // would wait for ever
    gate.open();
    ASSERT_EQ(cuStreamSynchronize(free.get()), CUDA_SUCCESS);
    Gate second;
    second.block(blocking);
    ASSERT_EQ(cuMemsetD32(word, 2, 1), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamQuery(nullptr), CUDA_ERROR_NOT_READY);
    second.open();
    EXPECT_EQ(word_at(word), 2U);
  }
  EXPECT_EQ(cuMemFree(word), CUDA_SUCCESS);
}

TEST_F(DriverFacts, ParameterInfoNeedsTheRightKindOfHandle) {
  CUlibrary library = nullptr;
  CUkernel kernel = nullptr;
  ASSERT_EQ(cuLibraryLoadData(&library, kPtx, nullptr, nullptr, 0, nullptr, nullptr, 0),
            CUDA_SUCCESS);
  ASSERT_EQ(cuLibraryGetKernel(&kernel, library, "store_word"), CUDA_SUCCESS);
  std::size_t offset = 0;
  std::size_t bytes = 0;
  EXPECT_EQ(cuKernelGetParamInfo(kernel, 1, &offset, &bytes), CUDA_SUCCESS);
  EXPECT_EQ(offset, 8U);
  EXPECT_EQ(bytes, 4U);
  EXPECT_NE(cuFuncGetParamInfo(reinterpret_cast<CUfunction>(kernel), 1, &offset, &bytes),
            CUDA_SUCCESS);
  EXPECT_EQ(cuFuncGetParamInfo(gpu_.store, 0, &offset, &bytes), CUDA_SUCCESS);
  EXPECT_EQ(offset, 0U);
  EXPECT_EQ(bytes, 8U);
  EXPECT_NE(cuFuncGetParamInfo(gpu_.store, 2, &offset, &bytes), CUDA_SUCCESS);
  EXPECT_EQ(cuLibraryUnload(library), CUDA_SUCCESS);
}

TEST_F(DriverFacts, VersionChoosesTheGenerationOfAFunction) {
  const auto ask = [](const char* name, int version, cuuint64_t flags) {
    void* address = nullptr;
    CUdriverProcAddressQueryResult status{};
    cuGetProcAddress(name, &address, version, flags, &status);
    EXPECT_EQ(address != nullptr, status == CU_GET_PROC_ADDRESS_SUCCESS) << name;
    return address;
  };
  EXPECT_NE(ask("cuMemAlloc", 3020, 0), nullptr);
  EXPECT_NE(ask("cuCtxCreate", 3020, 0), ask("cuCtxCreate", 11040, 0));
  EXPECT_NE(ask("cuStreamQuery", 7000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM),
            ask("cuStreamQuery", 7000, CU_GET_PROC_ADDRESS_LEGACY_STREAM));
  EXPECT_NE(ask("cuGetProcAddress", 11030, 0), ask("cuGetProcAddress", 12000, 0));
  EXPECT_EQ(ask("cuMemCreate", 10000, 0), nullptr);  // since 10.2
  EXPECT_EQ(ask("cuNoSuchFunction", 12000, 0), nullptr);
}

// ---- stream capture, in its global mode, and what other threads may do meanwhile ----

class CaptureFacts : public DriverFacts {
 protected:
  void SetUp() override {
    DriverFacts::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cuMemAlloc(&word_, 4), CUDA_SUCCESS);
    ASSERT_EQ(cuMemsetD32(word_, 0, 1), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    gate_.emplace();
    stream_.emplace();
    ASSERT_EQ(cuStreamBeginCapture(stream_->get(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
    stream_->launch(gpu_.add, word_, 1);
  }
  void TearDown() override {
    if (IsSkipped()) return;
    if (status() != CU_STREAM_CAPTURE_STATUS_NONE) end();
    if (graph_ != nullptr) {
      EXPECT_EQ(cuGraphDestroy(graph_), CUDA_SUCCESS);
    }
    stream_.reset();
    gate_.reset();
    EXPECT_EQ(cuMemFree(word_), CUDA_SUCCESS);
  }

  CUstreamCaptureStatus status() {
    CUstreamCaptureStatus out = CU_STREAM_CAPTURE_STATUS_NONE;
    EXPECT_EQ(cuStreamIsCapturing(stream_->get(), &out), CUDA_SUCCESS);
    return out;
  }
  CUresult end() { return cuStreamEndCapture(stream_->get(), &graph_); }

  std::optional<Gate> gate_;
  std::optional<Stream> stream_;
  CUdeviceptr word_ = 0;
  CUgraph graph_ = nullptr;
};

/// Runs something on another thread that has the context.
template <class Body>
void elsewhere(const Body& body) {
  std::thread([&] {
    ASSERT_EQ(cuCtxSetCurrent(Gpu::get().context), CUDA_SUCCESS);
    body();
  }).join();
}

void map_and_unmap() {
  Range range(kPage);
  const Memory memory(kPage);
  range.map(0, kPage, memory.handle());
  EXPECT_NE(free_memory(), 0U);
}

TEST_F(CaptureFacts, MappingCallsAreLegal) {
  map_and_unmap();
  elsewhere(map_and_unmap);
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  ASSERT_EQ(end(), CUDA_SUCCESS);
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphInstantiate(&exec, graph_, 0), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 0U);  // captured, not run
  for (int i = 0; i < 3; ++i) EXPECT_EQ(cuGraphLaunch(exec, stream_->get()), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream_->get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 3U);
  EXPECT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);
}

TEST_F(CaptureFacts, ContextEventRuinsIt) {
  const Event event;
  EXPECT_EQ(cuCtxRecordEvent(gpu_.context, event.get()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  EXPECT_EQ(end(), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_F(CaptureFacts, ContextEventRuinsItFromARelaxedThreadToo) {
  elsewhere([this] {
    const Relaxed relaxed;
    const Event event;
    EXPECT_EQ(cuCtxRecordEvent(gpu_.context, event.get()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  });
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
}

TEST_F(CaptureFacts, EventQueryNeedsARelaxedThread) {
  const Event event;
  elsewhere([&] {
    const Relaxed relaxed;
    EXPECT_EQ(cuEventQuery(event.get()), CUDA_SUCCESS);
  });
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  elsewhere([&] { EXPECT_EQ(cuEventQuery(event.get()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
}

TEST_F(CaptureFacts, AllocationNeedsARelaxedThread) {
  CUdeviceptr plain = 0;
  elsewhere([&] {
    const Relaxed relaxed;
    EXPECT_EQ(cuMemAlloc(&plain, kPage), CUDA_SUCCESS);
    EXPECT_EQ(cuMemFree(plain), CUDA_SUCCESS);
  });
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  elsewhere([&] { EXPECT_EQ(cuMemAlloc(&plain, kPage), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
}

TEST_F(CaptureFacts, StreamMayGoWhileItCaptures) {
  stream_->destroy();
  stream_.emplace();
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_NONE);
  EXPECT_EQ(cuStreamBeginCapture(stream_->get(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(end(), CUDA_SUCCESS);
}

TEST_F(CaptureFacts, WaitForAValueCanBeCaptured) {
  gate_->block(*stream_);
  stream_->launch(gpu_.add, word_, 10);
  ASSERT_EQ(end(), CUDA_SUCCESS);
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphInstantiate(&exec, graph_, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, stream_->get()), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream_->get()), CUDA_ERROR_NOT_READY);
  gate_->open();
  ASSERT_EQ(cuStreamSynchronize(stream_->get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word_), 11U);
  EXPECT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);
}

// ---- facts that need a process of their own ----

TEST_F(DriverFacts, KernelOnAnUnmappedAddressLosesTheContext) {
  EXPECT_EQ(run_alone("Alone.DISABLED_Lost"), 0);
}

TEST(Alone, DISABLED_Lost) {
  const Gpu& gpu = Gpu::get();
  CUdeviceptr address = 0;
  CUstream stream = nullptr;
  ASSERT_EQ(cuMemAddressReserve(&address, kPage, 0, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  std::uint32_t value = 1;
  std::array<void*, 2> arguments{&address, &value};
  ASSERT_EQ(cuLaunchKernel(gpu.store, 1, 1, 1, 1, 1, 1, 0, stream, arguments.data(), nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  CUdeviceptr plain = 0;
  EXPECT_EQ(cuMemAlloc(&plain, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(DriverFacts, MemoryOfAKilledProcessReturns) {
  constexpr std::size_t kHeld = 64 * kPage;
  const std::size_t before = free_memory();
  int output = -1;
  const pid_t child = start_alone("Alone.DISABLED_Holder", &output);
  std::string said;
  char byte = 0;
  while (said.find("holding") == std::string::npos && read(output, &byte, 1) == 1) said += byte;
  EXPECT_NE(said.find("holding"), std::string::npos);
  EXPECT_LE(free_memory() + kHeld, before);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  close(output);
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (free_memory() + 8 * kPage < before && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_GE(free_memory() + 8 * kPage, before);
}

TEST(Alone, DISABLED_Holder) {
  ASSERT_TRUE(Gpu::get().present);
  const Memory memory(64 * kPage);
  std::puts("holding");
  std::fflush(stdout);
  poll(nullptr, 0, 60'000);  // killed meanwhile
}

TEST_F(DriverFacts, ForkedChildHasNoDriver) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::size_t free = 0;
    std::size_t total = 0;
    _exit(cuMemGetInfo(&free, &total) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace driver_facts
