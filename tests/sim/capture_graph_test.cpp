// A capture whose nodes go into a graph that is there already.
#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

using driver_facts::Stream;
using driver_facts::word_at;

class CaptureToGraph : public driver_facts::DriverFacts {};

TEST_F(CaptureToGraph, AddsToIt) {
  CUdeviceptr word = 0;
  ASSERT_EQ(cuMemAlloc(&word, 4), CUDA_SUCCESS);
  ASSERT_EQ(cuMemsetD32(word, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  const Stream stream;
  CUgraph graph = nullptr;
  ASSERT_EQ(cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  const auto begin = [&](CUgraph into) {
    return cuStreamBeginCaptureToGraph(stream.get(), into, nullptr, nullptr, 0,
                                       CU_STREAM_CAPTURE_MODE_GLOBAL);
  };
  EXPECT_EQ(begin(nullptr), CUDA_ERROR_INVALID_VALUE);
  for (int i = 0; i < 2; ++i) {
    CUgraph ended = nullptr;
    ASSERT_EQ(begin(graph), CUDA_SUCCESS);
    stream.launch(gpu_.add, word, 3);
    ASSERT_EQ(cuStreamEndCapture(stream.get(), &ended), CUDA_SUCCESS);
    EXPECT_EQ(ended, graph);
  }
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphInstantiate(&exec, graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, stream.get()), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream.get()), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word), 6U);
  EXPECT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(word), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
