// CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: synchronous copies and fills that otherwise only begin are done
// when they return. Large enough to be seen at work.
#include "check.hpp"

namespace {

constexpr std::size_t kSize = 512 * kMiB;

void set(CUdeviceptr at, unsigned on) {
  say("set", cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at));
  unsigned read = 0;
  say("read", cuPointerGetAttribute(&read, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at));
  std::printf("value %u\n", read);
}

template <class F>
void is_done(const char* what, CUstream stream, F call) {
  for (int round = 0; round < 4; ++round) {
    MUST(call());
    std::printf("%s done: %s\n", what, cuStreamQuery(stream) == CUDA_SUCCESS ? "yes" : "no");
  }
}

}  // namespace

int main() {
  MUST(cudaFree(nullptr));
  CUdeviceptr a = 0;
  CUdeviceptr b = 0;
  MUST(cuMemAlloc(&a, kSize));
  MUST(cuMemAlloc(&b, kSize));
  char* marked = reinterpret_cast<char*>(a);
  char* other = reinterpret_cast<char*>(b);
  MUST(cuMemsetD8(b, 1, kSize));
  set(a + kSize / 2, 1);
  is_done("driver's fill", CU_STREAM_LEGACY, [=] { return cuMemsetD8(a, 3, kSize); });
  is_done("runtime's fill", CU_STREAM_LEGACY, [=] { return cudaMemset(marked, 4, kSize); });
  is_done("copy to", CU_STREAM_LEGACY, [=] { return cuMemcpyDtoD(a, b, kSize); });
  is_done("runtime's copy", CU_STREAM_LEGACY, [=] {
    return cudaMemcpy(marked, other, kSize, cudaMemcpyDeviceToDevice);
  });
  is_done("rows", CU_STREAM_LEGACY, [=] { return cuMemsetD2D32(a, 4096, 5, 512, kSize / 4096); });
  show_digest("marked", marked, kSize);
  show_digest("other", other, kSize);
  set(a, 0);
  MUST(cuMemsetD8(a, 6, kSize));
  show_digest("cleared", marked, kSize);
  MUST(cuMemFree(a));
  MUST(cuMemFree(b));
  // The mark went with the memory.
  for (int i = 0; i < 2; ++i) {
    MUST(cuMemAlloc(&a, kSize));
    unsigned read = 9;
    say("read", cuPointerGetAttribute(&read, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, a));
    std::printf("value %u\n", read);
    set(a, 1);
    MUST(cuMemFree(a));
  }
  return 0;
}
