#include "tests/sim/device.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "tests/sim/call.hpp"
#include "tests/sim/context.hpp"
#include "tests/sim/faults.hpp"
#include "tests/sim/settings.hpp"

namespace sim {
namespace {

constexpr int kVersion = 13000;
constexpr char kName[] = "Simulated GPU";

std::vector<Device>& devices() {
  static std::vector<Device>& all = *new std::vector<Device>;
  return all;
}

/// Those of a Hopper data centre GPU, as far as programs ask for them. What is not here is 0.
int attribute(CUdevice_attribute which, int ordinal) {
  switch (which) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return 9;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
      return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
      return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
      return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
      return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      return 49152;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      return 232448;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      return 233472;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
      return 65536;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
    case CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
      return 32;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      return 1980000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
      return 3201000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      return 6144;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
      return 62914560;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
    case CU_DEVICE_ATTRIBUTE_SURFACE_ALIGNMENT:
      return 512;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return 132;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      return 2048;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
      return 3;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
      return 1 + ordinal;
    case CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_ECC_ENABLED:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS:
      return 1;
    default:
      return 0;
  }
}

/// The body of a call that asks a device something.
template <class Ask>
CUresult ask(const char* name, CUdevice ordinal, const void* out, const Ask& answer) {
  return enter(name, [&]() -> CUresult {
    Device* const device = find_device(ordinal);
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return answer(*device);
  });
}

CUresult write_uuid(const Device& device, CUuuid& out) {
  constexpr unsigned char kStart[15] = {0x53, 0x49, 0x4d, 0x2d, 0x47, 0x50, 0x55, 0x40,
                                        0x80, 0x6b, 0x76, 0x63, 0x61, 0x63, 0x68};
  std::memcpy(out.bytes, kStart, sizeof kStart);
  out.bytes[15] = static_cast<char>(device.ordinal);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult open_devices() {
  for (int ordinal = 0; ordinal < settings().devices; ++ordinal) {
    std::unique_ptr<PhysicalMemory> memory = PhysicalMemory::open(ordinal);
    if (memory == nullptr) {
      devices().clear();
      return CUDA_ERROR_OPERATING_SYSTEM;
    }
    devices().push_back({ordinal, std::move(memory), nullptr});
  }
  for (Device& device : devices()) device.primary = std::make_unique<Context>(device, true);
  return devices().empty() ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

int device_count() { return static_cast<int>(devices().size()); }

Device* find_device(int ordinal) {
  return ordinal < 0 || ordinal >= device_count() ? nullptr
                                                  : &devices()[static_cast<std::size_t>(ordinal)];
}

}  // namespace sim

using namespace sim;

CUresult cuInit(unsigned flags) {
  if (const CUresult fault = injected_fault(__func__)) return fault;
  return flags != 0 ? CUDA_ERROR_INVALID_VALUE : initialise();
}

CUresult cuDriverGetVersion(int* version) {
  if (const CUresult fault = injected_fault(__func__)) return fault;
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = kVersion;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  return enter(__func__, [&]() -> CUresult {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = device_count();
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return ask(__func__, ordinal, device, [&](const Device&) {
    *device = ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return ask(__func__, device, name, [&](const Device&) -> CUresult {
    if (length <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, static_cast<std::size_t>(length), "%s", kName);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return ask(__func__, device, uuid, [&](const Device& d) { return write_uuid(d, *uuid); });
}

CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return ask(__func__, device, uuid, [&](const Device& d) { return write_uuid(d, *uuid); });
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return ask(__func__, device, bytes, [&](const Device& d) {
    *bytes = d.memory->total_bytes();
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice device) {
  return ask(__func__, device, value, [&](const Device& d) -> CUresult {
    if (which <= 0 || which >= CU_DEVICE_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
    *value = attribute(which, d.ordinal);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  return ask(__func__, device, id, [&](const Device& d) -> CUresult {
    if (length < 13) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(id, static_cast<std::size_t>(length), "0000:%02X:00.0",
                  static_cast<unsigned>(1 + d.ordinal) & 0xffU);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetByPCIBusId(CUdevice* device, const char* id) {
  return enter(__func__, [&]() -> CUresult {
    unsigned domain = 0;
    unsigned bus = 0;
    if (device == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (std::sscanf(id, "%x:%x:", &domain, &bus) != 2 ||
        find_device(static_cast<int>(bus) - 1) == nullptr) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    *device = static_cast<int>(bus) - 1;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  return ask(__func__, device, major, [&](const Device& d) {
    *major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, d.ordinal);
    *minor = 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return ask(__func__, device, can, [&](const Device& d) -> CUresult {
    if (find_device(peer) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *can = d.ordinal != peer ? 1 : 0;
    return CUDA_SUCCESS;
  });
}
