// A tensor map holds its memory's address where no launch shows it; Hopper's copy engine reads by it.
#include <cudaTypedefs.h>

#include <cuda/barrier>

#include "check.hpp"

namespace {

constexpr int kWidth = 2048;
constexpr int kHeight = 2048;
constexpr int kTile = 32;

using barrier = cuda::barrier<cuda::thread_scope_block>;
namespace copy = cuda::device::experimental;

__global__ void through_tiles(const __grid_constant__ CUtensorMap from, const __grid_constant__ CUtensorMap to) {
  __shared__ alignas(128) int tile[kTile][kTile];
#pragma nv_diag_suppress static_var_with_dynamic_init
  __shared__ barrier ready;
  const int x = static_cast<int>(blockIdx.x) * kTile;
  const int y = static_cast<int>(blockIdx.y) * kTile;
  if (threadIdx.x == 0) {
    init(&ready, blockDim.x);
    copy::fence_proxy_async_shared_cta();
  }
  __syncthreads();
  barrier::arrival_token token;
  if (threadIdx.x == 0) {
    copy::cp_async_bulk_tensor_2d_global_to_shared(&tile, &from, x, y, ready);
    token = cuda::device::barrier_arrive_tx(ready, 1, sizeof tile);
  } else {
    token = ready.arrive();
  }
  ready.wait(std::move(token));
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile; i += static_cast<int>(blockDim.x))
    tile[i / kTile][i % kTile] = tile[i / kTile][i % kTile] * 3 + x - y;
  copy::fence_proxy_async_shared_cta();
  __syncthreads();
  if (threadIdx.x == 0) {
    copy::cp_async_bulk_tensor_2d_shared_to_global(&to, x, y, &tile);
    copy::cp_async_bulk_commit_group();
    copy::cp_async_bulk_wait_group_read<0>();
  }
}

CUtensorMap map_of(int* at) {
  CUtensorMap map{};
  const cuuint64_t size[] = {kWidth, kHeight};
  const cuuint64_t stride[] = {kWidth * sizeof(int)};
  const cuuint32_t box[] = {kTile, kTile};
  const cuuint32_t step[] = {1, 1};
  MUST(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_INT32, 2, at, size, stride, box, step,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                              CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return map;
}

}  // namespace

int main() {
  int *a, *b;
  const std::size_t size = sizeof(int) * kWidth * kHeight;
  MUST(cudaMalloc(&a, size));
  MUST(cudaMalloc(&b, size));
  const CUtensorMap from = map_of(a);
  const CUtensorMap to = map_of(b);
  fill<<<64, 256>>>(a, size / sizeof(int), 21u);
  through_tiles<<<dim3(kWidth / kTile, kHeight / kTile), 128>>>(from, to);
  MUST(cudaGetLastError());
  show_digest("tiles", b, size);
  MUST(cudaFree(a));
  MUST(cudaFree(b));
  return 0;
}
