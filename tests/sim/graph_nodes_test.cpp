// Graphs that are built of kernel nodes one by one.
#include <cuda.h>

#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

using driver_facts::word_at;

class GraphNodes : public driver_facts::DriverFacts {};

TEST_F(GraphNodes, RunWithTheArgumentsTheyWereGivenLast) {
  CUdeviceptr word = 0;
  ASSERT_EQ(cuMemAlloc(&word, 64), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  CUgraphNode node = nullptr;
  CUgraphExec exec = nullptr;
  std::uint32_t value = 5;
  void* parameters[] = {&word, &value};
  CUDA_KERNEL_NODE_PARAMS shape{};
  shape.func = gpu_.store;
  shape.gridDimX = shape.gridDimY = shape.gridDimZ = 1;
  shape.blockDimX = shape.blockDimY = shape.blockDimZ = 1;
  shape.kernelParams = parameters;
  ASSERT_EQ(cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphAddKernelNode(&node, graph, nullptr, 0, nullptr), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cuGraphAddKernelNode(&node, graph, nullptr, 0, &shape), CUDA_SUCCESS);
  value = 6;  // copied when it was added
  ASSERT_EQ(cuGraphInstantiate(&exec, graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word), 5U);
  ASSERT_EQ(cuGraphExecKernelNodeSetParams(exec, node, &shape), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(word_at(word), 6U);
  EXPECT_EQ(cuGraphExecKernelNodeSetParams(exec, nullptr, &shape), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(word), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
