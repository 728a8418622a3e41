// Kernel nodes that are added one by one, and changed in a graph that is launched.
#include <algorithm>

#include "tests/sim/call.hpp"
#include "tests/sim/graph.hpp"

namespace sim {
namespace {

CUresult work_of(const CUDA_KERNEL_NODE_PARAMS_v1* node, Work& out) {
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return kernel_work(node->func,
                     {node->gridDimX, node->gridDimY, node->gridDimZ, node->blockDimX,
                      node->blockDimY, node->blockDimZ, node->sharedMemBytes},
                     node->kernelParams, node->extra, out);
}

/// The older structure, which the newer begins with.
CUDA_KERNEL_NODE_PARAMS_v1 as_v1(const CUDA_KERNEL_NODE_PARAMS_v2& node) {
  auto* const function = node.func != nullptr ? node.func : reinterpret_cast<CUfunction>(node.kern);
  return {function,       node.gridDimX,  node.gridDimY,       node.gridDimZ,     node.blockDimX,
          node.blockDimY, node.blockDimZ, node.sharedMemBytes, node.kernelParams, node.extra};
}

CUresult add(const char* name, CUgraphNode* out, CUgraph handle,
             const CUDA_KERNEL_NODE_PARAMS_v1* parameters) {
  return enter_context(name, [&](Context&) -> CUresult {
    const std::shared_ptr<Graph> graph = find_graph(handle);
    if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto node = std::make_unique<Node>(Node{CU_GRAPH_NODE_TYPE_KERNEL, {}, {}});
    if (const CUresult bad = work_of(parameters, node->work)) return bad;
    *out = handle_of(node.get());
    graph->nodes.push_back(std::move(node));
    return CUDA_SUCCESS;
  });
}

CUresult change(const char* name, CUgraphExec handle, CUgraphNode node,
                const CUDA_KERNEL_NODE_PARAMS_v1* parameters) {
  return enter_context(name, [&](Context&) -> CUresult {
    const std::shared_ptr<GraphExec> exec = find_exec(handle);
    if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto at =
        std::find(exec->of.begin(), exec->of.end(), reinterpret_cast<const Node*>(node));
    if (at == exec->of.end()) return CUDA_ERROR_INVALID_VALUE;
    return work_of(parameters, exec->work[static_cast<std::size_t>(at - exec->of.begin())]);
  });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuGraphAddKernelNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* /*after*/,
                              size_t /*count*/, const CUDA_KERNEL_NODE_PARAMS_v1* parameters) {
  return add(__func__, node, graph, parameters);
}

CUresult cuGraphAddKernelNode_v2(CUgraphNode* node, CUgraph graph, const CUgraphNode* /*after*/,
                                 size_t /*count*/, const CUDA_KERNEL_NODE_PARAMS_v2* parameters) {
  if (parameters == nullptr) return add(__func__, node, graph, nullptr);
  const CUDA_KERNEL_NODE_PARAMS_v1 older = as_v1(*parameters);
  return add(__func__, node, graph, &older);
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                        const CUDA_KERNEL_NODE_PARAMS_v1* parameters) {
  return change(__func__, exec, node, parameters);
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                           const CUDA_KERNEL_NODE_PARAMS_v2* parameters) {
  if (parameters == nullptr) return change(__func__, exec, node, nullptr);
  const CUDA_KERNEL_NODE_PARAMS_v1 older = as_v1(*parameters);
  return change(__func__, exec, node, &older);
}
