// Twelve threads that allocate, fill, launch, copy and free at once, each with what it must find.
#include <thread>

#include "check.hpp"

namespace {

constexpr int kThreads = 12;
constexpr int kRounds = 25;

std::uint64_t life(unsigned me) {
  MUST(cudaSetDevice(0));
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, me % 2 == 0 ? cudaStreamDefault : cudaStreamNonBlocking));
  std::uint32_t random = me * 7919 + 1;
  std::uint64_t sum = me;
  unsigned* kept = nullptr;
  std::size_t kept_count = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::size_t n = kMiB / 8 + next_random(random) % (3 * kMiB);
    unsigned *a, *b;
    MUST(cudaMalloc(&a, n * 4));
    MUST(cudaMalloc(&b, n * 4));
    fill<<<16, 256, 0, stream>>>(a, n, random);
    MUST(cudaMemsetAsync(b, static_cast<int>(me), n * 4, stream));
    add<<<16, 256, 0, stream>>>(b, a, b, n);
    std::vector<unsigned> host(n);
    MUST(cudaMemcpyAsync(host.data(), b, n * 4, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    sum = sum * 1099511628211ULL ^ digest_of(host.data(), n * 4);
    if (kept != nullptr) {  // another round's memory is untouched by this one
      host.resize(kept_count);
      MUST(cudaMemcpy(host.data(), kept, kept_count * 4, cudaMemcpyDeviceToHost));
      sum = sum * 1099511628211ULL ^ digest_of(host.data(), kept_count * 4);
      MUST(cudaFree(kept));
    }
    kept = a;
    kept_count = n;
    if (next_random(random) % 2 == 0)
      MUST(cudaFree(b));
    else
      MUST(cudaFreeAsync(b, stream));
  }
  MUST(cudaFree(kept));
  MUST(cudaStreamDestroy(stream));
  return sum;
}

}  // namespace

int main() {
  std::vector<std::uint64_t> sums(kThreads);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back([&sums, i] { sums[i] = life(i); });
  for (auto& thread : threads) thread.join();
  for (const auto sum : sums) std::printf("%016llx\n", static_cast<unsigned long long>(sum));
  return 0;
}
