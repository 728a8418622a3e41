// link: -lcuda
// Everything that can be asked of an allocation, and everything that is refused for it; one line
// for each answer. Run with and without the library, the output must be the same. Left out are
// whether it can be shared by IPC (elastic memory cannot), and by how much the driver rounds up.
#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kMiB = 1 << 20;

void say(const char* what, CUresult result) {
  std::printf("%s %d\n", what, static_cast<int>(result));
}

void attributes(CUdeviceptr base, std::size_t size, CUdeviceptr at, CUcontext context) {
  for (int kind = 1; kind <= 21; ++kind) {
    if (kind == CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE ||
        kind == CU_POINTER_ATTRIBUTE_MAPPING_SIZE) {
      continue;
    }
    unsigned long long one[8] = {};
    unsigned long long many[8] = {};
    const auto which = static_cast<CUpointer_attribute>(kind);
    CUpointer_attribute list[] = {which};
    void* data[] = {many};
    const CUresult alone = cuPointerGetAttribute(one, which, at);
    const CUresult among = cuPointerGetAttributes(1, list, data, at);
    std::printf("attribute %d: %d %d same %d ", kind, static_cast<int>(alone),
                static_cast<int>(among), one[0] == many[0]);
    if (kind == CU_POINTER_ATTRIBUTE_CONTEXT) {
      std::printf("current %d\n", one[0] == reinterpret_cast<std::uintptr_t>(context));
    } else if (kind == CU_POINTER_ATTRIBUTE_BUFFER_ID ||
               kind == CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID) {
      std::printf("known %d\n", one[0] != 0);
    } else if (one[0] >= base && one[0] < base + size) {
      std::printf("base + %llu\n", one[0] - base);
    } else {
      std::printf("%llu\n", one[0]);
    }
  }
}

void ask(CUdeviceptr base, std::size_t size, CUcontext context) {
  for (const std::size_t offset : {std::size_t{0}, size / 2 + 1, size - 1}) {
    const CUdeviceptr at = base + offset;
    std::printf("-- %zu of %zu\n", offset, size);
    attributes(base, size, at, context);
    CUdeviceptr start = 0;
    std::size_t length = 0;
    say("range", cuMemGetAddressRange_v2(&start, &length, at));
    std::printf("start %d length %zu\n", start == base, length);
    say("base alone", cuMemGetAddressRange_v2(&start, nullptr, at));
    say("length alone", cuMemGetAddressRange_v2(nullptr, &length, at));
  }
}

// What would take the memory from under the program, did the driver see what lies behind it.
void refused(CUdeviceptr at, std::size_t size) {
  CUmemGenericAllocationHandle handle = 0;
  say("retain", cuMemRetainAllocationHandle(&handle, reinterpret_cast<void*>(at)));
  for (const std::size_t bytes : {size, 2 * kMiB}) {
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, {0}}, CU_MEM_ACCESS_FLAGS_PROT_READ};
    say("set access", cuMemSetAccess(at, bytes, &access, 1));
    say("unmap", cuMemUnmap(at, bytes));
    say("address free", cuMemAddressFree(at, bytes));
  }
  CUdeviceptr mapped = 0;
  say("as host memory", cuMemHostGetDevicePointer_v2(&mapped, reinterpret_cast<void*>(at), 0));
  say("free inside", cuMemFree_v2(at + 1));
  say("free inside on a stream", cuMemFreeAsync(at + kMiB, nullptr));
}

void intact(CUdeviceptr at, std::size_t size) {
  say("fill", cuMemsetD8_v2(at, 7, size));
  unsigned char last = 0;
  say("read", cuMemcpyDtoH_v2(&last, at + size - 1, 1));
  std::printf("last %d\n", last);
}

}  // namespace

int main() {
  CUcontext context = use_gpu();
  for (const std::size_t size : {2 * kMiB, 5 * kMiB + 3, 64 * kMiB}) {
    CUdeviceptr at = 0;
    say("alloc", cuMemAlloc_v2(&at, size));
    ask(at, size, context);
    refused(at, size);
    intact(at, size);
    ask(at, size, context);
    refused(at, size);
    intact(at, size);
    say("free", cuMemFree_v2(at));
    say("range afterwards", cuMemGetAddressRange_v2(&at, nullptr, at));
  }
  CUdeviceptr a = 0;
  CUdeviceptr b = 0;
  cuMemAlloc_v2(&a, 4 * kMiB);
  cuMemAlloc_v2(&b, 4 * kMiB);
  for (const auto kind : {CU_POINTER_ATTRIBUTE_BUFFER_ID, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID}) {
    unsigned long long ids[3] = {};
    cuPointerGetAttribute(&ids[0], kind, a);
    cuPointerGetAttribute(&ids[1], kind, a + 3 * kMiB);
    cuPointerGetAttribute(&ids[2], kind, b);
    std::printf("one id %d, two ids %d\n", ids[0] == ids[1], ids[0] != ids[2]);
  }
  say("free on a stream", cuMemFreeAsync(a, nullptr));
  say("free on the thread's", cuMemFreeAsync_ptsz(b, nullptr));
  cuDevicePrimaryCtxRelease(0);  // ends the thread that the simulated driver made for that stream
  return 0;
}
