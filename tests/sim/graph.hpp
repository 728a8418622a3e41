#pragma once

#include <memory>
#include <vector>

#include "tests/sim/kernel.h"
#include "tests/sim/stream.hpp"

namespace sim {

/// One captured piece of work.
struct Node {
  CUgraphNodeType type;
  Work work;
  std::vector<Node*> after;
};

/// Work in the order of its capture, which is an order in which it may run.
struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
};

/// What is launched: a copy, so that the graph may go.
struct GraphExec {
  std::vector<Work> work;
  std::vector<const Node*> of;  // the node of each, to be found by; the nodes may be gone
  Context* context;
};

CUgraph publish_graph(std::shared_ptr<Graph> graph);
/// nullptr for a handle that is none.
std::shared_ptr<GraphExec> find_exec(CUgraphExec handle);
std::shared_ptr<Graph> find_graph(CUgraph handle);

/// launch.cpp: what a kernel with these arguments does; they are copied.
CUresult kernel_work(CUfunction function, const sim_launch& shape, void** parameters, void** extra,
                     Work& out);

inline CUgraphNode handle_of(Node* node) { return reinterpret_cast<CUgraphNode>(node); }

}  // namespace sim
