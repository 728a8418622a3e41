// Cooperative and cluster launches, launch attributes, and kernels that find their memory in tables.
#include <cooperative_groups.h>

#include "check.hpp"

namespace cg = cooperative_groups;

namespace {

constexpr std::size_t kCount = 2 * kMiB;

__global__ void cooperative(unsigned* a, unsigned* b, std::size_t n) {
  auto grid = cg::this_grid();
  for (std::size_t i = grid.thread_rank(); i < n; i += grid.size()) a[i] = static_cast<unsigned>(i * 7);
  grid.sync();
  for (std::size_t i = grid.thread_rank(); i < n; i += grid.size()) b[i] = a[n - 1 - i] + 1;
}

__global__ void clusters(unsigned* out, std::size_t n) {
  __shared__ unsigned mine[256];
  auto cluster = cg::this_cluster();
  mine[threadIdx.x] = blockIdx.x * 1000 + threadIdx.x;
  cluster.sync();
  const unsigned other = (cluster.block_rank() + 1) % cluster.num_blocks();
  const unsigned* theirs = cluster.map_shared_rank(mine, other);
  const std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  if (i < n) out[i] = theirs[threadIdx.x];
  cluster.sync();
}

struct Table {
  unsigned* rows[8];
};
__device__ Table g_table;
__device__ unsigned* g_pointer;

// No argument of this launch names the memory that it writes.
__global__ void by_table(std::size_t n) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    for (int r = 0; r < 8; ++r) g_table.rows[r][i] = static_cast<unsigned>(i) * (r + 3);
    g_pointer[i] = static_cast<unsigned>(i) ^ 0x5555;
  }
}

__global__ void primary(unsigned* at, std::size_t n) {
  const std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  if (i < n) at[i] = 1;
  cudaTriggerProgrammaticLaunchCompletion();
}
__global__ void secondary(unsigned* at, std::size_t n) {
  cudaGridDependencySynchronize();
  const std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  if (i < n) at[i] += 41;
}

template <class... A>
void launch(void (*kernel)(A...), unsigned blocks, unsigned threads, cudaLaunchAttribute attribute, A... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.attrs = &attribute;
  config.numAttrs = 1;
  MUST(cudaLaunchKernelEx(&config, kernel, args...));
}

}  // namespace

int main() {
  unsigned *a, *b;
  MUST(cudaMalloc(&a, kCount * 4));
  MUST(cudaMalloc(&b, kCount * 4));
  std::size_t n = kCount;
  void* args[] = {&a, &b, &n};
  MUST(cudaLaunchCooperativeKernel(cooperative, dim3(64), dim3(256), args, 0, nullptr));
  show_digest("cooperative", b, kCount * 4);

  unsigned* c;
  MUST(cudaMalloc(&c, kCount * 4));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {4, 1, 1};
  launch(clusters, static_cast<unsigned>(kCount / 256), 256u, cluster, c, n);
  show_digest("clusters", c, kCount * 4);

  Table table{};
  for (auto& row : table.rows) MUST(cudaMalloc(&row, kCount * 4));
  unsigned* lone;
  MUST(cudaMalloc(&lone, kCount * 4));
  MUST(cudaMemcpyToSymbol(g_table, &table, sizeof table));
  MUST(cudaMemcpyToSymbol(g_pointer, &lone, sizeof lone));
  by_table<<<64, 256>>>(kCount);
  MUST(cudaGetLastError());
  for (auto* row : table.rows) show_digest("table", row, kCount * 4);
  show_digest("symbol", lone, kCount * 4);

  cudaLaunchAttribute dependent{};
  dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  dependent.val.programmaticStreamSerializationAllowed = 1;
  unsigned* d;
  MUST(cudaMalloc(&d, kCount * 4));
  primary<<<kCount / 256, 256>>>(d, kCount);
  launch(secondary, static_cast<unsigned>(kCount / 256), 256u, dependent, d, n);
  show_digest("dependent", d, kCount * 4);

  // A table of addresses that points into buffers made after it was filled, and before.
  fill<<<64, 256>>>(a, 0, 0u);
  unsigned* late;
  MUST(cudaMalloc(&late, kCount * 4));
  MUST(cudaMemcpyToSymbol(g_pointer, &late, sizeof late));
  by_table<<<64, 256>>>(kCount);
  show_digest("late", late, kCount * 4);
  return 0;
}
