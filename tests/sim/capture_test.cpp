// Capture rules beyond those that a real GPU is tested for too.
#include <optional>
#include <thread>

#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

using driver_facts::Event;
using driver_facts::Relaxed;
using driver_facts::Stream;

class Captures : public driver_facts::DriverFacts {
 protected:
  void SetUp() override {
    ASSERT_TRUE(gpu_.present);
    ASSERT_EQ(cuMemAlloc(&word_, 4), CUDA_SUCCESS);
    ASSERT_EQ(cuMemsetD32(word_, 0, 1), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  }
  void TearDown() override {
    if (graph_ != nullptr) {
      EXPECT_EQ(cuGraphDestroy(graph_), CUDA_SUCCESS);
    }
    EXPECT_EQ(cuMemFree(word_), CUDA_SUCCESS);
  }
  static void begin(const Stream& stream,
                    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
    ASSERT_EQ(cuStreamBeginCapture(stream.get(), mode), CUDA_SUCCESS);
  }
  CUresult end(const Stream& stream) { return cuStreamEndCapture(stream.get(), &graph_); }
  static CUstreamCaptureStatus status(const Stream& stream) {
    CUstreamCaptureStatus out = CU_STREAM_CAPTURE_STATUS_NONE;
    EXPECT_EQ(cuStreamIsCapturing(stream.get(), &out), CUDA_SUCCESS);
    return out;
  }

  CUdeviceptr word_ = 0;
  CUgraph graph_ = nullptr;
};

TEST_F(Captures, ForkedStreamsMustJoin) {
  const Stream origin;
  const Stream branch;
  const Event fork;
  const Event join;
  for (const bool joined : {false, true}) {
    begin(origin);
    origin.launch(gpu_.add, word_, 1);
    ASSERT_EQ(cuEventRecord(fork.get(), origin.get()), CUDA_SUCCESS);
    ASSERT_EQ(cuStreamWaitEvent(branch.get(), fork.get(), 0), CUDA_SUCCESS);
    EXPECT_EQ(status(branch), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    branch.launch(gpu_.add, word_, 10);
    if (joined) {
      ASSERT_EQ(cuEventRecord(join.get(), branch.get()), CUDA_SUCCESS);
      ASSERT_EQ(cuStreamWaitEvent(origin.get(), join.get(), 0), CUDA_SUCCESS);
    }
    EXPECT_EQ(end(origin), joined ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    EXPECT_EQ(status(branch), CU_STREAM_CAPTURE_STATUS_NONE);
  }
  std::size_t nodes = 0;
  ASSERT_EQ(cuGraphGetNodes(graph_, nullptr, &nodes), CUDA_SUCCESS);
  EXPECT_EQ(nodes, 2U);
}

TEST_F(Captures, EventRecordedInsideHasNoMeaningOutside) {
  const Stream stream;
  const Stream other;
  const Event event;
  begin(stream);
  ASSERT_EQ(cuEventRecord(event.get(), stream.get()), CUDA_SUCCESS);
  {
    const Relaxed relaxed;
    EXPECT_EQ(cuEventQuery(event.get()), CUDA_ERROR_CAPTURED_EVENT);
  }
  EXPECT_EQ(end(stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamWaitEvent(other.get(), event.get(), 0), CUDA_ERROR_CAPTURED_EVENT);
  ASSERT_EQ(cuEventRecord(event.get(), stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event.get()), CUDA_SUCCESS);
}

TEST_F(Captures, LegacyStreamCannotBeTiedToOne) {
  const Stream blocking(CU_STREAM_DEFAULT);
  begin(blocking);
  auto status = CU_STREAM_CAPTURE_STATUS_NONE;
  EXPECT_EQ(cuStreamIsCapturing(CU_STREAM_LEGACY, &status), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_EQ(end(blocking), CUDA_SUCCESS);  // a question does no harm
  begin(blocking);
  EXPECT_EQ(cuMemsetD32(word_, 1, 1), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_EQ(end(blocking), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  const Stream independent;
  begin(independent);
  EXPECT_EQ(cuMemsetD32(word_, 1, 1), CUDA_SUCCESS);
  EXPECT_EQ(end(independent), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

TEST_F(Captures, OnlyItsThreadEndsItUnlessRelaxed) {
  const Stream stream;
  for (const bool relaxed : {false, true}) {
    begin(stream, relaxed ? CU_STREAM_CAPTURE_MODE_RELAXED : CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    CUresult result = CUDA_SUCCESS;
    std::thread([&] {
      ASSERT_EQ(cuCtxSetCurrent(gpu_.context), CUDA_SUCCESS);
      result = end(stream);
    }).join();
    EXPECT_EQ(result, relaxed ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    if (!relaxed) {
      EXPECT_EQ(end(stream), CUDA_SUCCESS);
      EXPECT_EQ(cuGraphDestroy(graph_), CUDA_SUCCESS);
      graph_ = nullptr;
    }
  }
}

TEST_F(Captures, ModesSayWhoMayAllocate) {
  const Stream stream;
  const auto allocate = [this] {
    CUdeviceptr address = 0;
    EXPECT_EQ(cuCtxSetCurrent(gpu_.context), CUDA_SUCCESS);
    const CUresult result = cuMemAlloc(&address, 4);
    if (result == CUDA_SUCCESS) {
      EXPECT_EQ(cuMemFree(address), CUDA_SUCCESS);
    }
    return result;
  };
  CUresult elsewhere = CUDA_ERROR_UNKNOWN;
  begin(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  std::thread([&] { elsewhere = allocate(); }).join();
  EXPECT_EQ(elsewhere, CUDA_SUCCESS);
  EXPECT_EQ(status(stream), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_EQ(allocate(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(end(stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  begin(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  EXPECT_EQ(allocate(), CUDA_SUCCESS);
  EXPECT_EQ(end(stream), CUDA_SUCCESS);
}

TEST_F(Captures, CapturingStreamCannotBeWaitedFor) {
  const Stream stream;
  begin(stream);
  {
    const Relaxed relaxed;
    EXPECT_EQ(cuStreamSynchronize(stream.get()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  EXPECT_EQ(end(stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  begin(stream);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(end(stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_F(Captures, DestroyedStreamTakesItsCaptureAlong) {
  std::optional<Stream> stream(std::in_place);
  begin(*stream);
  stream.reset();
  const Event event;
  EXPECT_EQ(cuCtxRecordEvent(gpu_.context, event.get()), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event.get()), CUDA_SUCCESS);
}

TEST_F(Captures, CopiesAndFillsBecomeNodes) {
  const Stream stream;
  std::uint32_t host = 0;
  ASSERT_EQ(cuMemHostRegister(&host, sizeof host, 0), CUDA_SUCCESS);
  begin(stream);
  ASSERT_EQ(cuMemsetD32Async(word_, 6, 1, stream.get()), CUDA_SUCCESS);
  stream.launch(gpu_.add, word_, 1);
  ASSERT_EQ(cuMemcpyDtoHAsync(&host, word_, 4, stream.get()), CUDA_SUCCESS);
  ASSERT_EQ(end(stream), CUDA_SUCCESS);
  EXPECT_EQ(host, 0U);
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphInstantiate(&exec, graph_, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, stream.get()), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);  // what is launched still runs
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(host, 7U);
  EXPECT_EQ(cuMemHostUnregister(&host), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
