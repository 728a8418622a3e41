// What the nodes of a graph will touch: backed when the node is made or changed, since a graph may
// be launched from anywhere afterwards.
#include "shim/driver/cuda_abi.hpp"
#include "shim/hooks/touches.hpp"

namespace kvcached::hooks::touches {
namespace {

// Of either generation.
template <class Fill>
void fill_node(const Fill* fill, Touched& out) noexcept {
  if (fill == nullptr) return;
  out.rows(fill->dst, fill->pitch, fill->width * fill->elementSize, fill->height);
}

template <class Node>
void kernel_node(const Node* node, Touched& out) noexcept {
  if (node == nullptr) return;
  const void* function = node->func;
  if constexpr (requires { node->kern; }) {
    if (function == nullptr) function = node->kern;
  }
  kernel(function, node->kernelParams, node->extra, out);
}

void node(const CUgraphNodeParams* node, Touched& out) noexcept {
  if (node == nullptr) return;
  switch (node->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return kernel_node(&node->kernel, out);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return box(&node->memcpy.copyParams, out);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return fill_node(&node->memset, out);
    case CU_GRAPH_NODE_TYPE_HOST:
    case CU_GRAPH_NODE_TYPE_GRAPH:  // its nodes were added before
    case CU_GRAPH_NODE_TYPE_EMPTY:
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
    case CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL:
    case CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT:
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:  // its nodes are added later
      return;
    default:
      return out.everything();
  }
}

}  // namespace

#define KVCACHED_NODE(name, type, meaning, index)           \
  void name(const Arguments& call, Touched& out) noexcept { \
    meaning(call.at<const type*>(index), out);              \
  }
KVCACHED_NODE(kernel_node1, CUDA_KERNEL_NODE_PARAMS_v1, kernel_node, 1)
KVCACHED_NODE(kernel_node2, CUDA_KERNEL_NODE_PARAMS_v1, kernel_node, 2)
KVCACHED_NODE(kernel_node4, CUDA_KERNEL_NODE_PARAMS_v1, kernel_node, 4)
KVCACHED_NODE(kernel_node1_v2, CUDA_KERNEL_NODE_PARAMS_v2, kernel_node, 1)
KVCACHED_NODE(kernel_node2_v2, CUDA_KERNEL_NODE_PARAMS_v2, kernel_node, 2)
KVCACHED_NODE(kernel_node4_v2, CUDA_KERNEL_NODE_PARAMS_v2, kernel_node, 4)
KVCACHED_NODE(copy_node1, CUDA_MEMCPY3D, box, 1)
KVCACHED_NODE(copy_node2, CUDA_MEMCPY3D, box, 2)
KVCACHED_NODE(copy_node4, CUDA_MEMCPY3D, box, 4)
KVCACHED_NODE(fill_node1, CUDA_MEMSET_NODE_PARAMS_v1, fill_node, 1)
KVCACHED_NODE(fill_node2, CUDA_MEMSET_NODE_PARAMS_v1, fill_node, 2)
KVCACHED_NODE(fill_node4, CUDA_MEMSET_NODE_PARAMS_v1, fill_node, 4)
KVCACHED_NODE(node1, CUgraphNodeParams, node, 1)
KVCACHED_NODE(node2, CUgraphNodeParams, node, 2)
KVCACHED_NODE(node4, CUgraphNodeParams, node, 4)
KVCACHED_NODE(node5, CUgraphNodeParams, node, 5)
#undef KVCACHED_NODE

}  // namespace kvcached::hooks::touches
