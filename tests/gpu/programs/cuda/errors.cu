// Errors that the driver reports, before and after a kernel broke the context.
#include "check.hpp"

__global__ void trap() { __trap(); }

int main() {
  void* p = nullptr;
  say("too large", cudaMalloc(&p, std::size_t{1} << 46));
  say("last error", cudaGetLastError());
  say("nothing", cudaMalloc(&p, 0));
  std::printf("null %d\n", p == nullptr);
  say("no place", cudaMalloc(static_cast<void**>(nullptr), 4 * kMiB));
  cudaGetLastError();
  MUST(cudaMalloc(&p, 8 * kMiB));
  fill<<<64, 256>>>(static_cast<unsigned*>(p), 2 * kMiB, 4u);
  show_digest("works", p, 8 * kMiB);
  fill<<<64, 2048>>>(static_cast<unsigned*>(p), 2 * kMiB, 4u);
  say("too many threads", cudaGetLastError());
  void* q = nullptr;
  MUST(cudaMalloc(&q, 8 * kMiB));
  trap<<<1, 1>>>();
  say("trap", cudaDeviceSynchronize());
  say("malloc", cudaMalloc(&p, 8 * kMiB));
  say("free", cudaFree(q));
  say("memset", cudaMemset(q, 0, 8));
  say("reset", cudaDeviceReset());
  return 5;
}
