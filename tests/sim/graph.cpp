// Graphs made by capture: instantiate, launch, destroy.
#include "tests/sim/graph.hpp"

#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"

namespace sim {
namespace {

struct Graphs {
  std::shared_mutex mutex;
  std::unordered_map<CUgraph, std::shared_ptr<Graph>> graphs;
  std::unordered_map<CUgraphExec, std::shared_ptr<GraphExec>> execs;
};

Graphs& graphs() {
  static Graphs& all = *new Graphs;
  return all;
}

CUresult instantiate(Context& context, CUgraphExec* out, CUgraph handle) {
  const std::shared_ptr<Graph> graph = find_graph(handle);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto exec = std::make_shared<GraphExec>();
  exec->context = &context;
  for (const auto& node : graph->nodes) {
    exec->work.push_back(node->work);
    exec->of.push_back(node.get());
  }
  *out = reinterpret_cast<CUgraphExec>(exec.get());
  const std::unique_lock lock(graphs().mutex);
  graphs().execs[*out] = std::move(exec);
  return CUDA_SUCCESS;
}

}  // namespace

std::shared_ptr<GraphExec> find_exec(CUgraphExec handle) {
  const std::shared_lock lock(graphs().mutex);
  const auto found = graphs().execs.find(handle);
  return found == graphs().execs.end() ? nullptr : found->second;
}

CUgraph publish_graph(std::shared_ptr<Graph> graph) {
  const auto handle = reinterpret_cast<CUgraph>(graph.get());
  const std::unique_lock lock(graphs().mutex);
  graphs().graphs[handle] = std::move(graph);
  return handle;
}

std::shared_ptr<Graph> find_graph(CUgraph handle) {
  const std::shared_lock lock(graphs().mutex);
  const auto found = graphs().graphs.find(handle);
  return found == graphs().graphs.end() ? nullptr : found->second;
}

}  // namespace sim

using namespace sim;

CUresult cuGraphCreate(CUgraph* graph, unsigned flags) {
  return enter(__func__, [&]() -> CUresult {
    if (graph == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    *graph = publish_graph(std::make_shared<Graph>());
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphDestroy(CUgraph graph) {
  return enter(__func__, [&]() -> CUresult {
    const std::unique_lock lock(graphs().mutex);
    return graphs().graphs.erase(graph) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuGraphInstantiate(CUgraphExec* exec, CUgraph graph, CUgraphNode* /*error*/, char* /*log*/,
                            size_t /*bytes*/) {
  return enter_context(__func__, [&](Context& c) { return instantiate(c, exec, graph); });
}

CUresult cuGraphInstantiate_v2(CUgraphExec* exec, CUgraph graph, CUgraphNode* /*error*/,
                               char* /*log*/, size_t /*bytes*/) {
  return enter_context(__func__, [&](Context& c) { return instantiate(c, exec, graph); });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph,
                                     unsigned long long /*flags*/) {
  return enter_context(__func__, [&](Context& c) { return instantiate(c, exec, graph); });
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* exec, CUgraph graph,
                                      CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (parameters == nullptr) return CUDA_ERROR_INVALID_VALUE;
    parameters->hErrNode_out = nullptr;
    parameters->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return instantiate(context, exec, graph);
  });
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
  return enter(__func__, [&]() -> CUresult {
    const std::unique_lock lock(graphs().mutex);
    return graphs().execs.erase(exec) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    std::shared_ptr<Stream> in;
    if (const CUresult refused = resolve_stream(stream, context, in)) return refused;
    return find_exec(exec) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    std::shared_ptr<Stream> in;
    if (const CUresult refused = resolve_stream(stream, context, in)) return refused;
    const std::shared_ptr<GraphExec> exec = find_exec(handle);
    if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto run = [exec, &context] {
      for (const Work& work : exec->work) perform(context, work);
    };
    return enqueue(*in, CU_GRAPH_NODE_TYPE_GRAPH, {Work::Kind::kAlways, run});
  });
}

CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  return enter(__func__, [&]() -> CUresult {
    const std::shared_ptr<Graph> graph = find_graph(handle);
    if (graph == nullptr || count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (nodes != nullptr) {
      for (size_t i = 0; i < *count; ++i) {
        nodes[i] = i < graph->nodes.size() ? handle_of(graph->nodes[i].get()) : nullptr;
      }
    }
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType* type) {
  return enter(__func__, [&]() -> CUresult {
    if (type == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const std::shared_lock lock(graphs().mutex);
    for (const auto& [unused, graph] : graphs().graphs) {
      for (const auto& node : graph->nodes) {
        if (handle_of(node.get()) != handle) continue;
        *type = node->type;
        return CUDA_SUCCESS;
      }
    }
    return CUDA_ERROR_INVALID_VALUE;
  });
}
