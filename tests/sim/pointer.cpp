// What can be asked about an address.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "tests/sim/call.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

template <class Value>
CUresult give(void* out, Value value) {
  std::memcpy(out, &value, sizeof(Value));
  return CUDA_SUCCESS;
}

CUresult attribute(const Place& place, CUdeviceptr address, CUpointer_attribute which, void* out) {
  const bool host = place.kind == Place::Kind::kHost;
  const bool plain = place.kind == Place::Kind::kAllocated;
  const bool reserved = place.kind == Place::Kind::kReserved;
  switch (which) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return give(out, reinterpret_cast<std::uintptr_t>(place.context));
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return give(out, static_cast<unsigned>(host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE));
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return give(out, address);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (host || place.origin == Origin::kManaged) return give(out, address);
      give(out, CUdeviceptr{0});
      return CUDA_ERROR_INVALID_VALUE;
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      if (!plain && place.kind != Place::Kind::kMapped) return CUDA_ERROR_INVALID_VALUE;
      // As documented; mapped memory does not have it.
      static_cast<void>(Space::get().set_sync_memops(address, true));
      return give(out, CUDA_POINTER_ATTRIBUTE_P2P_TOKENS{1, 1});
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return give(out, static_cast<unsigned>(place.sync_memops));
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return give(out, static_cast<unsigned long long>(place.id));
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return give(out, static_cast<unsigned>(plain && place.origin == Origin::kManaged));
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return give(out, place.device);
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return give(out, plain && place.origin == Origin::kDevice);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return give(out, place.range_base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return give(out, place.range_bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return give(out, !reserved);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      return give(out, std::uint64_t{0});
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
      return give(out, false);
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return give(out, plain && place.origin == Origin::kDevice);
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return give(out, host ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : place.access);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return give(out, reinterpret_cast<std::uintptr_t>(place.pool));
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      return give(out, place.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return give(out, place.base);
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

/// For an address that is not the driver's, the plural call gives "nothing" instead of an error.
void give_nothing(CUpointer_attribute which, void* out) {
  switch (which) {
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      give(out, -2);
      return;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      give(out, 0U);
      return;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
      give(out, false);
      return;
    default:
      give(out, std::uint64_t{0});
  }
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuPointerGetAttribute(void* out, CUpointer_attribute which, CUdeviceptr address) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const Place place = Space::get().find(address);
    if (place.kind == Place::Kind::kNothing) return CUDA_ERROR_INVALID_VALUE;
    return attribute(place, address, which, out);
  });
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* which, void** out,
                                CUdeviceptr address) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (count == 0 || which == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const Place place = Space::get().find(address);
    for (unsigned i = 0; i < count; ++i) {
      if (which[i] == CU_POINTER_ATTRIBUTE_P2P_TOKENS) return CUDA_ERROR_NOT_SUPPORTED;
      if (place.kind == Place::Kind::kNothing) {
        give_nothing(which[i], out[i]);
      } else if (attribute(place, address, which[i], out[i]) == CUDA_ERROR_NOT_SUPPORTED) {
        return CUDA_ERROR_NOT_SUPPORTED;
      }
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuPointerSetAttribute(const void* value, CUpointer_attribute which, CUdeviceptr address) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (value == nullptr || which != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    unsigned on = 0;
    std::memcpy(&on, value, sizeof(on));
    const CUresult refused = Space::get().set_sync_memops(address, on != 0);
    if (refused != CUDA_SUCCESS || on == 0) return refused;
    // Synchronous copies and fills that were begun before are over afterwards.
    context.legacy_stream()->tail().wait();
    context.thread_stream()->tail().wait();
    return CUDA_SUCCESS;
  });
}

// Stands for a dma-buf: a file that nobody can map, of the range's size.
CUresult cuMemGetHandleForAddressRange(void* out, CUdeviceptr address, std::size_t bytes,
                                       CUmemRangeHandleType type, unsigned long long flags) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    constexpr std::size_t kHostPage = 4096;
    const bool aligned = address % kHostPage == 0 && bytes % kHostPage == 0;
    if (out == nullptr || bytes == 0 || !aligned || type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD ||
        flags != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    for (CUdeviceptr at = address; at - address < bytes;) {
      const Place place = Space::get().find(at);
      if (place.kind != Place::Kind::kMapped && place.kind != Place::Kind::kAllocated) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      at = place.base + place.bytes;
    }
    const int descriptor = memfd_create("dma-buf", MFD_CLOEXEC);
    if (descriptor < 0 || ftruncate(descriptor, static_cast<off_t>(bytes)) != 0) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    std::memcpy(out, &descriptor, sizeof descriptor);
    return CUDA_SUCCESS;
  });
}
