// Every kind of copy and fill, across the borders of pages and of buffers.
#include "check.hpp"

namespace {

constexpr std::size_t kSize = 12 * kMiB + 4096;

unsigned char* filled(unsigned seed) {
  unsigned char* p;
  MUST(cudaMalloc(&p, kSize));
  fill<<<64, 256>>>(p, kSize, seed);
  return p;
}

void one_dimension() {
  unsigned char* a = filled(1);
  unsigned char* b;
  MUST(cudaMalloc(&b, kSize));
  MUST(cudaMemcpy(b, a, kSize, cudaMemcpyDeviceToDevice));
  show_digest("copied", b, kSize);
  const std::size_t edges[] = {2 * kMiB - 3, 4 * kMiB - 1, 6 * kMiB + 1};
  for (const std::size_t at : edges) MUST(cudaMemcpyAsync(b + at, a + at / 2, 3 * kMiB + 5, cudaMemcpyDefault));
  show_digest("edges", b, kSize);
  std::vector<unsigned char> host(kSize, 0x3c);
  MUST(cudaMemcpy(b + 2 * kMiB - 7, host.data(), 17, cudaMemcpyHostToDevice));
  MUST(cudaMemcpy(host.data(), b + kMiB, 5 * kMiB, cudaMemcpyDeviceToHost));
  std::printf("host %016llx\n", static_cast<unsigned long long>(digest_of(host.data(), host.size())));
  void* pinned;
  MUST(cudaMallocHost(&pinned, kSize));
  MUST(cudaMemcpyAsync(pinned, b, kSize, cudaMemcpyDeviceToHost));
  MUST(cudaMemcpyAsync(a, pinned, kSize, cudaMemcpyHostToDevice));
  show_digest("through pinned memory", a, kSize);
  MUST(cudaMemcpyPeer(b, 0, a + 1, 0, kSize - 1));
  show_digest("peer", b, kSize);
  MUST(cudaFreeHost(pinned));
  MUST(cudaFree(a));
  MUST(cudaFree(b));
}

void fills() {
  unsigned char* p;
  MUST(cudaMalloc(&p, kSize));
  const auto d = reinterpret_cast<CUdeviceptr>(p);
  MUST(cuMemsetD8(d, 1, kSize));
  MUST(cuMemsetD16(d + 2 * kMiB - 2, 0x0203, kMiB));
  MUST(cuMemsetD32(d + 6 * kMiB - 4, 0x04050607, kMiB / 2));
  MUST(cuMemsetD2D8(d + 8 * kMiB, 4096, 9, 1000, 700));
  MUST(cuMemsetD2D16(d + 8 * kMiB + 2048, 4096, 0x0a0b, 300, 700));
  MUST(cuMemsetD2D32(d + 8 * kMiB + 3072, 4096, 0x0c0d0e0f, 200, 700));
  show_digest("fills", p, kSize);
  MUST(cudaMemset2DAsync(p + 5, 3000, 0x77, 2000, 4000));
  MUST(cudaMemset3D(make_cudaPitchedPtr(p, 512, 500, 100), 0x21, make_cudaExtent(300, 90, 200)));
  show_digest("more fills", p, kSize);
  MUST(cudaFree(p));
}

void two_and_three_dimensions() {
  unsigned char* a = filled(2);
  unsigned char* b;
  MUST(cudaMalloc(&b, kSize));
  MUST(cudaMemset(b, 0, kSize));
  MUST(cudaMemcpy2D(b + 100, 3001, a + 7, 2999, 2500, 4000, cudaMemcpyDeviceToDevice));
  show_digest("2D", b, kSize);
  std::vector<unsigned char> host(8 * kMiB);
  MUST(cudaMemcpy2D(host.data(), 2048, a, 4096, 2048, 3000, cudaMemcpyDeviceToHost));
  std::printf("2D to host %016llx\n", static_cast<unsigned long long>(digest_of(host.data(), host.size())));
  cudaMemcpy3DParms p{};
  p.srcPtr = make_cudaPitchedPtr(a, 1024, 1024, 100);
  p.dstPtr = make_cudaPitchedPtr(b, 2048, 2048, 60);
  p.extent = make_cudaExtent(900, 50, 90);
  p.kind = cudaMemcpyDefault;
  MUST(cudaMemcpy3D(&p));
  show_digest("3D", b, kSize);
  cudaArray_t array;
  const auto format = cudaCreateChannelDesc<float>();
  MUST(cudaMallocArray(&array, &format, 1024, 1024));
  MUST(cudaMemcpy2DToArray(array, 0, 0, a, 4096, 4096, 1024, cudaMemcpyDeviceToDevice));
  MUST(cudaMemcpy2DFromArray(b, 4096, array, 0, 0, 4096, 1024, cudaMemcpyDeviceToDevice));
  show_digest("array", b, kSize);
  MUST(cudaFreeArray(array));
  std::size_t pitch = 0;
  unsigned char* pitched;
  MUST(cudaMallocPitch(&pitched, &pitch, 5000, 3000));
  MUST(cudaMemcpy2D(pitched, pitch, a, 4000, 4000, 2500, cudaMemcpyDeviceToDevice));
  MUST(cudaMemcpy2D(b, 4000, pitched, pitch, 4000, 2500, cudaMemcpyDeviceToDevice));
  std::printf("pitch %zu\n", pitch);
  show_digest("pitched", b, kSize);
  MUST(cudaFree(pitched));
  MUST(cudaFree(a));
  MUST(cudaFree(b));
}

// Source and destination that were never touched before, in one batch.
void batches() {
  constexpr std::size_t kPieces = 6;
  cudaStream_t stream;
  MUST(cudaStreamCreate(&stream));
  unsigned char* a = filled(3);
  MUST(cudaDeviceSynchronize());
  unsigned char* b;
  MUST(cudaMalloc(&b, kSize));
  void* to[kPieces];
  const void* from[kPieces];
  std::size_t sizes[kPieces];
  for (std::size_t i = 0; i < kPieces; ++i) {
    to[i] = b + i * 2 * kMiB + i;
    from[i] = a + (kPieces - 1 - i) * 2 * kMiB;
    sizes[i] = 2 * kMiB - 64;
  }
  cudaMemcpyAttributes attributes{};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  std::size_t first = 0;
  say("batch", cudaMemcpyBatchAsync(to, from, sizes, kPieces, &attributes, &first, 1, stream));
  MUST(cudaStreamSynchronize(stream));
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kPieces; ++i) {
    std::vector<unsigned char> host(sizes[i]);
    MUST(cudaMemcpy(host.data(), to[i], sizes[i], cudaMemcpyDeviceToHost));
    sum = sum * 31 + digest_of(host.data(), host.size());
  }
  std::printf("batch %016llx\n", static_cast<unsigned long long>(sum));
  MUST(cudaFree(a));
  MUST(cudaFree(b));
}

}  // namespace

int main() {
  one_dimension();
  fills();
  two_and_three_dimensions();
  batches();
  return 0;
}
