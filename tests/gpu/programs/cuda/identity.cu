// Every question about a pointer: cudaMalloc's own answers must come back.
#include "check.hpp"

namespace {

void ask_attributes(const char* name, CUdeviceptr base, std::size_t size, CUdeviceptr at, CUcontext current) {
  std::printf("-- %s\n", name);
  unsigned long long word[16];
  for (int kind = 1; kind <= 21; ++kind) {
    // Elastic memory cannot be shared by IPC, and says so.
    if (kind == CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE) continue;
    for (auto& w : word) w = 0;
    const CUresult result = cuPointerGetAttribute(word, static_cast<CUpointer_attribute>(kind), at);
    std::printf("attribute %d: %d ", kind, static_cast<int>(result));
    const auto value = static_cast<CUdeviceptr>(word[0]);
    switch (kind) {
      case CU_POINTER_ATTRIBUTE_CONTEXT:
        std::printf("%s\n", word[0] == reinterpret_cast<std::uintptr_t>(current) ? "current" : "other");
        break;
      case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        std::printf("%s\n", word[0] != 0 ? "some" : "none");
        break;
      case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
        std::printf("\n");
        break;
      default:
        if (value >= base && value < base + size)
          std::printf("base + %llu\n", static_cast<unsigned long long>(value - base));
        else
          std::printf("%llu\n", word[0]);
    }
  }
}

void ask_together(CUdeviceptr at) {
  CUpointer_attribute kinds[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                 CU_POINTER_ATTRIBUTE_IS_MANAGED, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                 CU_POINTER_ATTRIBUTE_MAPPED, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
                                 CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES};
  unsigned long long values[7] = {};
  void* data[7];
  for (int i = 0; i < 7; ++i) data[i] = &values[i];
  say("together", cuPointerGetAttributes(7, kinds, data, at));
  for (int i = 0; i < 7; ++i)
    std::printf("together %d: %llu\n", static_cast<int>(kinds[i]), values[i]);
}

void ask_runtime(const char* name, char* base, std::size_t size, char* at) {
  cudaPointerAttributes a{};
  std::printf("%s runtime: %s", name, cudaGetErrorName(cudaPointerGetAttributes(&a, at)));
  std::printf(" type %d device %d same %d host %d\n", static_cast<int>(a.type), a.device, a.devicePointer == at,
              a.hostPointer != nullptr);
  CUdeviceptr start = 0;
  std::size_t length = 0;
  const auto where = reinterpret_cast<CUdeviceptr>(at);
  say("  range", cuMemGetAddressRange(&start, &length, where));
  std::printf("  base %d size %zu of %zu\n", start == reinterpret_cast<CUdeviceptr>(base), length, size);
  CUmemGenericAllocationHandle handle = 0;
  say("  retained handle", cuMemRetainAllocationHandle(&handle, at));
  unsigned long long flags = 0;
  CUmemLocation here{CU_MEM_LOCATION_TYPE_DEVICE, 0};
  say("  access here", cuMemGetAccess(&flags, &here, where));
}

void ask_managed(char* at, std::size_t size) {
  const cudaMemLocation device{cudaMemLocationTypeDevice, 0};
  say("prefetch", cudaMemPrefetchAsync(at, size, device, 0));
  cudaGetLastError();
  say("advise", cudaMemAdvise(at, size, cudaMemAdviseSetReadMostly, device));
  cudaGetLastError();
  int value = -1;
  say("range attribute", cuMemRangeGetAttribute(&value, sizeof value, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY,
                                                reinterpret_cast<CUdeviceptr>(at), size));
  say("host register", cudaHostRegister(at, size, cudaHostRegisterDefault));
  cudaGetLastError();
  void* mapped = nullptr;
  say("host pointer", cudaHostGetDevicePointer(&mapped, at, 0));
  cudaGetLastError();
  say("free as host", cudaFreeHost(at));
  cudaGetLastError();
}

void ask_memops(char* at) {
  unsigned one = 1;
  const auto where = reinterpret_cast<CUdeviceptr>(at);
  say("set sync memops", cuPointerSetAttribute(&one, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, where));
  unsigned read = 9;
  say("read sync memops", cuPointerGetAttribute(&read, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, where));
  std::printf("sync memops %u\n", read);
}

void ask_peers() {
  say("peer itself", cudaDeviceEnablePeerAccess(0, 0));
  cudaGetLastError();
  say("no peer itself", cudaDeviceDisablePeerAccess(0));
  cudaGetLastError();
}

void free_in_all_ways() {
  const std::size_t size = 8 * kMiB;
  char* p = nullptr;
  MUST(cudaMalloc(&p, size));
  say("free inside", cudaFree(p + 4096));
  cudaGetLastError();
  say("free", cudaFree(p));
  say("free again", cudaFree(p));
  cudaGetLastError();
  MUST(cudaMalloc(&p, size));
  say("async free inside", cudaFreeAsync(p + 4096, 0));
  cudaGetLastError();
  say("async free", cudaFreeAsync(p, 0));
  MUST(cudaDeviceSynchronize());
  CUdeviceptr d = 0;
  MUST(cuMemAlloc(&d, size));
  say("runtime frees the driver's", cudaFree(reinterpret_cast<void*>(d)));
  MUST(cudaMalloc(&p, size));
  say("driver frees the runtime's", cuMemFree(reinterpret_cast<CUdeviceptr>(p)));
  MUST(cuMemAlloc(&d, size));
  say("driver's async free", cuMemFreeAsync(d, nullptr));
  MUST(cudaDeviceSynchronize());
  MUST(cudaMallocAsync(&p, size, 0));
  say("free of async memory", cudaFree(p));
  say("free nothing", cudaFree(nullptr));
  MUST(cudaMalloc(&p, size));
  say("unmap one's own", cuMemUnmap(reinterpret_cast<CUdeviceptr>(p), size));
  say("address free", cuMemAddressFree(reinterpret_cast<CUdeviceptr>(p), size));
  CUmemAccessDesc access{{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  say("set access", cuMemSetAccess(reinterpret_cast<CUdeviceptr>(p), size, &access, 1));
  MUST(cudaMemset(p, 1, size));
  MUST(cudaFree(p));
}

}  // namespace

int main() {
  const std::size_t sizes[] = {2 * kMiB, 3 * kMiB + 512, 64 * kMiB, 100 * kMiB + 1};
  MUST(cudaFree(nullptr));
  CUcontext current = nullptr;
  MUST(cuCtxGetCurrent(&current));
  for (const std::size_t size : sizes) {
    char* p = nullptr;
    MUST(cudaMalloc(&p, size));
    std::printf("== %zu bytes, aligned %d\n", size, reinterpret_cast<std::uintptr_t>(p) % 512 == 0);
    const auto base = reinterpret_cast<CUdeviceptr>(p);
    for (int round = 0; round < 2; ++round) {  // before any work and after
      ask_attributes("start", base, size, base, current);
      ask_attributes("inside", base, size, base + size / 2 + 1, current);
      ask_attributes("last byte", base, size, base + size - 1, current);
      ask_together(base + size / 3);
      ask_runtime("start", p, size, p);
      ask_runtime("last byte", p, size, p + size - 1);
      fill<<<64, 256>>>(p, size, 7u);
      MUST(cudaGetLastError());
      show_digest("filled", p, size);
    }
    ask_managed(p, size);
    ask_memops(p);
    MUST(cudaFree(p));
  }
  char* a = nullptr;
  char* b = nullptr;
  MUST(cudaMalloc(&a, 4 * kMiB));
  MUST(cudaMalloc(&b, 4 * kMiB));
  unsigned long long ids[3] = {};
  MUST(cuPointerGetAttribute(&ids[0], CU_POINTER_ATTRIBUTE_BUFFER_ID, reinterpret_cast<CUdeviceptr>(a)));
  MUST(cuPointerGetAttribute(&ids[1], CU_POINTER_ATTRIBUTE_BUFFER_ID, reinterpret_cast<CUdeviceptr>(a) + 77));
  MUST(cuPointerGetAttribute(&ids[2], CU_POINTER_ATTRIBUTE_BUFFER_ID, reinterpret_cast<CUdeviceptr>(b)));
  std::printf("ids: one buffer %d, two buffers %d\n", ids[0] == ids[1], ids[0] != ids[2]);
  MUST(cudaFree(a));
  MUST(cudaFree(b));
  ask_peers();
  free_in_all_ways();
  return 0;
}
