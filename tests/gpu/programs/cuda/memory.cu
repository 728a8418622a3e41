// What a program sees of the GPU's memory: its own allocations are missing, and nothing else.
#include "check.hpp"

namespace {

std::size_t free_now() {
  std::size_t free = 0, total = 0;
  MUST(cudaMemGetInfo(&free, &total));
  return free;
}

// In steps of 64 MiB, so that what the driver keeps for itself does not show.
void step(const char* what, std::size_t before) {
  const auto taken = static_cast<long long>(before) - static_cast<long long>(free_now());
  std::printf("%s: %lld\n", what, (taken + 32 * static_cast<long long>(kMiB)) / (64 * static_cast<long long>(kMiB)));
}

}  // namespace

int main() {
  std::size_t free = 0, total = 0;
  MUST(cudaMemGetInfo(&free, &total));
  std::printf("total %zu\n", total);
  const std::size_t start = free;
  void *a, *b, *c, *d;
  MUST(cudaMalloc(&a, 1024 * kMiB));
  step("one more", start);
  MUST(cudaMalloc(&b, 2048 * kMiB));
  step("untouched", start);
  MUST(cudaMemset(b, 1, 2048 * kMiB));
  step("touched", start);
  MUST(cudaMallocAsync(&c, 1024 * kMiB, 0));
  MUST(cudaDeviceSynchronize());
  step("async", start);
  MUST(cudaFree(a));
  step("freed", start);
  MUST(cudaFreeAsync(c, 0));
  MUST(cudaDeviceSynchronize());
  step("async freed", start);
  MUST(cudaMalloc(&d, 512 * kMiB));
  step("again", start);
  MUST(cudaFree(b));
  MUST(cudaFree(d));
  step("nothing", start);
  // Everything there is: whole gibibytes until there is no more.
  std::vector<void*> all;
  void* p;
  while (cudaMalloc(&p, 1024 * kMiB) == cudaSuccess) all.push_back(p);
  say("out of memory", cudaGetLastError());
  std::printf("got what was free, but for two: %d\n", all.size() + 2 >= start / (1024 * kMiB));
  for (void* q : all) MUST(cudaMemsetAsync(q, 3, 1024 * kMiB));
  MUST(cudaDeviceSynchronize());
  for (void* q : all) MUST(cudaFree(q));
  step("all freed", start);
  return 0;
}
