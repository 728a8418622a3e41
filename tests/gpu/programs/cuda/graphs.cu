// Stream capture in all three modes, forks and joins in it, updates, clones, and launches by threads.
#include <thread>

#include "check.hpp"

namespace {

constexpr std::size_t kCount = 4 * kMiB;

struct Buffers {
  unsigned *a, *b, *c;
};

Buffers make() {
  Buffers x{};
  MUST(cudaMalloc(&x.a, kCount * 4));
  MUST(cudaMalloc(&x.b, kCount * 4));
  MUST(cudaMalloc(&x.c, kCount * 4));
  return x;
}

void work(const Buffers& x, cudaStream_t main, cudaStream_t side, unsigned seed) {
  cudaEvent_t forked, joined;
  MUST(cudaEventCreateWithFlags(&forked, cudaEventDisableTiming));
  MUST(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
  MUST(cudaMemsetAsync(x.c, 0x11, kCount * 4, main));
  fill<<<128, 256, 0, main>>>(x.a, kCount, seed);
  MUST(cudaEventRecord(forked, main));
  MUST(cudaStreamWaitEvent(side, forked, 0));
  fill<<<128, 256, 0, side>>>(x.b, kCount, seed + 1);
  MUST(cudaEventRecord(joined, side));
  MUST(cudaStreamWaitEvent(main, joined, 0));
  add<<<128, 256, 0, main>>>(x.c, x.a, x.b, kCount);
  MUST(cudaMemcpyAsync(x.a, x.c, kCount * 2, cudaMemcpyDeviceToDevice, main));
  MUST(cudaEventDestroy(forked));
  MUST(cudaEventDestroy(joined));
}

cudaGraph_t capture(const Buffers& x, cudaStreamCaptureMode mode, unsigned seed) {
  cudaStream_t main, side;
  MUST(cudaStreamCreate(&main));
  MUST(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
  cudaGraph_t graph;
  MUST(cudaStreamBeginCapture(main, mode));
  work(x, main, side, seed);
  MUST(cudaStreamEndCapture(main, &graph));
  MUST(cudaStreamDestroy(main));
  MUST(cudaStreamDestroy(side));
  return graph;
}

void run_mode(const char* name, cudaStreamCaptureMode mode) {
  Buffers x = make();  // not touched before the capture: it must be backed by the launch
  cudaGraph_t graph = capture(x, mode, 3);
  std::size_t nodes = 0;
  MUST(cudaGraphGetNodes(graph, nullptr, &nodes));
  std::printf("%s: %zu nodes\n", name, nodes);
  cudaGraphExec_t run;
  MUST(cudaGraphInstantiate(&run, graph, 0));
  cudaStream_t stream;
  MUST(cudaStreamCreate(&stream));
  for (int i = 0; i < 3; ++i) MUST(cudaGraphLaunch(run, stream));
  show_digest(name, x.c, kCount * 4);
  show_digest(name, x.a, kCount * 4);
  cudaGraph_t other = capture(x, mode, 99);
  cudaGraphExecUpdateResultInfo info{};
  say("update", cudaGraphExecUpdate(run, other, &info));
  std::thread([&] { MUST(cudaGraphLaunch(run, stream)); }).join();
  show_digest("updated", x.c, kCount * 4);
  cudaGraph_t clone;
  MUST(cudaGraphClone(&clone, graph));
  cudaGraphExec_t cloned;
  MUST(cudaGraphInstantiate(&cloned, clone, 0));
  MUST(cudaGraphUpload(cloned, stream));
  MUST(cudaGraphLaunch(cloned, stream));
  show_digest("clone", x.c, kCount * 4);
  MUST(cudaGraphExecDestroy(run));
  MUST(cudaGraphExecDestroy(cloned));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaGraphDestroy(other));
  MUST(cudaGraphDestroy(clone));
  MUST(cudaFree(x.a));
  MUST(cudaFree(x.b));
  MUST(cudaFree(x.c));
}

// Memory that a thread in relaxed mode takes while another stream captures. That stream does not wait
// for the default one, on which nothing may be done while one that does captures.
void allocate_while_capturing() {
  Buffers x = make();
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  unsigned* late = nullptr;
  std::thread([&] {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    MUST(cudaThreadExchangeStreamCaptureMode(&mode));
    MUST(cudaMalloc(&late, kCount * 4));
    MUST(cudaMemset(late, 0, kCount * 4));
  }).join();
  fill<<<64, 256, 0, stream>>>(late, kCount, 5u);
  add<<<64, 256, 0, stream>>>(x.a, late, late, kCount);
  cudaGraph_t graph;
  MUST(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t run;
  MUST(cudaGraphInstantiate(&run, graph, 0));
  MUST(cudaDeviceSynchronize());
  MUST(cudaGraphLaunch(run, stream));
  show_digest("late", x.a, kCount * 4);
  MUST(cudaGraphExecDestroy(run));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaFree(late));
  MUST(cudaFree(x.a));
  MUST(cudaFree(x.b));
  MUST(cudaFree(x.c));
}

// Nodes made by hand.
void by_hand() {
  Buffers x = make();
  cudaGraph_t graph;
  MUST(cudaGraphCreate(&graph, 0));
  cudaGraphNode_t set, copy;
  cudaMemsetParams params{};
  params.dst = x.a;
  params.elementSize = 4;
  params.width = kCount;
  params.height = 1;
  params.value = 0x01020304;
  MUST(cudaGraphAddMemsetNode(&set, graph, nullptr, 0, &params));
  MUST(cudaGraphAddMemcpyNode1D(&copy, graph, &set, 1, x.b, x.a, kCount * 4, cudaMemcpyDeviceToDevice));
  cudaGraphExec_t run;
  MUST(cudaGraphInstantiate(&run, graph, 0));
  MUST(cudaGraphLaunch(run, 0));
  show_digest("by hand", x.b, kCount * 4);
  MUST(cudaGraphExecDestroy(run));
  MUST(cudaGraphDestroy(graph));
}

}  // namespace

int main() {
  run_mode("global", cudaStreamCaptureModeGlobal);
  run_mode("thread local", cudaStreamCaptureModeThreadLocal);
  run_mode("relaxed", cudaStreamCaptureModeRelaxed);
  allocate_while_capturing();
  by_hand();
  return 0;
}
