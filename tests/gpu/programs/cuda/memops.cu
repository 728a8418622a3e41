// Streams that wait for and write words in elastic memory, host callbacks, events and priorities.
#include <atomic>
#include <thread>

#include "check.hpp"

int main() {
  MUST(cudaFree(nullptr));
  CUstream a, b;
  MUST(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
  MUST(cuStreamCreateWithPriority(&b, CU_STREAM_NON_BLOCKING, -1));
  CUdeviceptr flags;
  unsigned* data;
  MUST(cuMemAlloc(&flags, 4 * kMiB));
  MUST(cudaMalloc(&data, 16 * kMiB));
  MUST(cuMemsetD32(flags, 0, kMiB));
  // A kernel's first launch loads it, and waits for streams: none may be waiting for us then.
  fill<<<1, 1, 0, a>>>(data, 1, 0u);
  MUST(cudaDeviceSynchronize());
  MUST(cuStreamWaitValue32(a, flags + 2 * kMiB, 5, CU_STREAM_WAIT_VALUE_GEQ));
  fill<<<64, 256, 0, a>>>(data, 4 * kMiB, 3u);
  MUST(cuStreamWriteValue32(a, flags + 8, 1, 0));
  CUstreamBatchMemOpParams ops[2] = {};
  ops[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  ops[0].writeValue.address = flags + 16;
  ops[0].writeValue.value = 77;
  ops[1].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  ops[1].writeValue.address = flags + 2 * kMiB;
  ops[1].writeValue.value = 5;
  say("batch", cuStreamBatchMemOp(b, 2, ops, 0));  // lets the first stream go
  MUST(cuStreamWaitValue32(b, flags + 8, 1, CU_STREAM_WAIT_VALUE_EQ));
  std::atomic<int> called{0};
  MUST(cudaLaunchHostFunc(b, [](void* p) { static_cast<std::atomic<int>*>(p)->store(9); }, &called));
  MUST(cuStreamSynchronize(b));
  std::printf("called %d\n", called.load());
  show_digest("data", data, 16 * kMiB);
  show_digest("flags", reinterpret_cast<void*>(flags), 4 * kMiB);
  say("64 bits", cuStreamWriteValue64(a, flags + 64, 0x1122334455667788ULL, 0));
  show_digest("flags", reinterpret_cast<void*>(flags), 4 * kMiB);
  MUST(cuMemFree(flags));
  MUST(cudaFree(data));
  return 0;
}
