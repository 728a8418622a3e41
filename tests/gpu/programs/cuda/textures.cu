// Textures over linear and pitched elastic memory, and surfaces.
#include "check.hpp"

namespace {

constexpr int kWidth = 1024;
constexpr int kHeight = 1024;

__global__ void read_linear(cudaTextureObject_t texture, float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = tex1Dfetch<float>(texture, n - 1 - i);
}
__global__ void read_pitched(cudaTextureObject_t texture, float* out) {
  const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int y = static_cast<int>(blockIdx.y);
  out[y * kWidth + x] = tex2D<float>(texture, static_cast<float>(kWidth - 1 - x) + 0.5f, static_cast<float>(y) + 0.5f);
}
__global__ void numbers(float* at, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) at[i] = static_cast<float>(i % 8191);
}

}  // namespace

int main() {
  const int n = kWidth * kHeight;
  float *in, *out;
  MUST(cudaMalloc(&in, n * sizeof(float)));
  MUST(cudaMalloc(&out, n * sizeof(float)));
  cudaTextureDesc how{};
  how.readMode = cudaReadModeElementType;
  cudaResourceDesc what{};
  what.resType = cudaResourceTypeLinear;
  what.res.linear.devPtr = in;
  what.res.linear.desc = cudaCreateChannelDesc<float>();
  what.res.linear.sizeInBytes = n * sizeof(float);
  cudaTextureObject_t linear;
  // The texture is made while the memory is not yet backed.
  MUST(cudaCreateTextureObject(&linear, &what, &how, nullptr));
  numbers<<<n / 256, 256>>>(in, n);
  read_linear<<<n / 256, 256>>>(linear, out, n);
  show_digest("linear", out, n * sizeof(float));
  what = {};
  what.resType = cudaResourceTypePitch2D;
  what.res.pitch2D.devPtr = in;
  what.res.pitch2D.desc = cudaCreateChannelDesc<float>();
  what.res.pitch2D.width = kWidth;
  what.res.pitch2D.height = kHeight;
  what.res.pitch2D.pitchInBytes = kWidth * sizeof(float);
  cudaTextureObject_t pitched;
  MUST(cudaCreateTextureObject(&pitched, &what, &how, nullptr));
  read_pitched<<<dim3(kWidth / 256, kHeight), 256>>>(pitched, out);
  show_digest("pitched", out, n * sizeof(float));
  MUST(cudaDestroyTextureObject(linear));
  MUST(cudaDestroyTextureObject(pitched));
  MUST(cudaFree(in));
  MUST(cudaFree(out));
  return 0;
}
