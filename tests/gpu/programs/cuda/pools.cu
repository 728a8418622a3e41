// Stream-ordered memory beside elastic memory: pools, their limits and figures, graph memory nodes.
#include "check.hpp"

int main() {
  cudaStream_t one, two;
  MUST(cudaStreamCreate(&one));
  MUST(cudaStreamCreate(&two));
  cudaMemPool_t pool;
  MUST(cudaDeviceGetDefaultMemPool(&pool, 0));
  std::uint64_t keep = ~std::uint64_t{0};
  MUST(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
  unsigned* elastic;
  MUST(cudaMalloc(&elastic, 32 * kMiB));
  std::uint32_t random = 5;
  for (int round = 0; round < 50; ++round) {
    const std::size_t n = 1024 + next_random(random) % kMiB;
    unsigned *a, *b;
    MUST(cudaMallocAsync(&a, n * 4, one));
    MUST(cudaMallocAsync(&b, n * 4, one));
    fill<<<32, 256, 0, one>>>(a, n, static_cast<unsigned>(round));
    fill<<<32, 256, 0, one>>>(b, n, static_cast<unsigned>(round + 1));
    add<<<32, 256, 0, one>>>(elastic + round * 1024, a, b, 1024);
    MUST(cudaFreeAsync(a, one));
    MUST(cudaFreeAsync(b, round % 2 == 0 ? one : two));
    if (round % 10 == 9) MUST(cudaDeviceSynchronize());
  }
  show_digest("default pool", elastic, 50 * 4096);
  std::uint64_t used = 1;
  MUST(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  std::printf("used %llu\n", static_cast<unsigned long long>(used));
  MUST(cudaMemPoolTrimTo(pool, 0));

  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;
  props.location = {cudaMemLocationTypeDevice, 0};
  cudaMemPool_t mine;
  MUST(cudaMemPoolCreate(&mine, &props));
  unsigned* c;
  MUST(cudaMallocFromPoolAsync(&c, 16 * kMiB, mine, two));
  fill<<<64, 256, 0, two>>>(c, 4 * kMiB, 77u);
  MUST(cudaMemcpyAsync(elastic, c, 16 * kMiB, cudaMemcpyDeviceToDevice, two));
  show_digest("own pool", elastic, 16 * kMiB);
  MUST(cudaFreeAsync(c, two));
  MUST(cudaStreamSynchronize(two));
  MUST(cudaMemPoolDestroy(mine));

  cudaGraph_t graph;
  MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeGlobal));
  unsigned* d;
  MUST(cudaMallocAsync(&d, 8 * kMiB, one));
  fill<<<64, 256, 0, one>>>(d, 2 * kMiB, 8u);
  MUST(cudaMemcpyAsync(elastic, d, 8 * kMiB, cudaMemcpyDeviceToDevice, one));
  MUST(cudaFreeAsync(d, one));
  MUST(cudaStreamEndCapture(one, &graph));
  cudaGraphExec_t run;
  MUST(cudaGraphInstantiate(&run, graph, 0));
  for (int i = 0; i < 3; ++i) MUST(cudaGraphLaunch(run, one));
  show_digest("memory nodes", elastic, 8 * kMiB);
  MUST(cudaGraphExecDestroy(run));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaDeviceGraphMemTrim(0));
  MUST(cudaFreeAsync(elastic, one));
  MUST(cudaStreamSynchronize(one));
  std::printf("done\n");
  return 0;
}
