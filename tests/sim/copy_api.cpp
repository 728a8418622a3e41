// Copies and fills.
#include "tests/sim/call.hpp"
#include "tests/sim/copy.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

CUdeviceptr host(const void* address) { return reinterpret_cast<CUdeviceptr>(address); }

/// Whether a synchronous call about it waits where others of its kind do not.
bool waits(CUdeviceptr address) { return Space::get().find(address).sync_memops; }

CUresult line(const char* name, CUdeviceptr to, CUdeviceptr from, std::size_t bytes,
              CUstream stream, bool wait) {
  return enter_context(name, [&](Context& context) {
    return copy(context, stream, {to, 0, from, 0, bytes, 1}, wait);
  });
}

CUresult rectangle(const char* name, const CUDA_MEMCPY2D* from, CUstream stream, bool wait) {
  return enter_context(name, [&](Context& context) -> CUresult {
    if (from == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto address = [](CUmemorytype type, CUdeviceptr device, const void* memory) {
      return type == CU_MEMORYTYPE_HOST ? host(memory) : device;
    };
    if (from->srcMemoryType == CU_MEMORYTYPE_ARRAY || from->dstMemoryType == CU_MEMORYTYPE_ARRAY) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    const std::size_t to_pitch = from->dstPitch != 0 ? from->dstPitch : from->WidthInBytes;
    const std::size_t from_pitch = from->srcPitch != 0 ? from->srcPitch : from->WidthInBytes;
    if (to_pitch < from->WidthInBytes || from_pitch < from->WidthInBytes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return copy(context, stream,
                {address(from->dstMemoryType, from->dstDevice, from->dstHost) +
                     from->dstY * to_pitch + from->dstXInBytes,
                 to_pitch,
                 address(from->srcMemoryType, from->srcDevice, from->srcHost) +
                     from->srcY * from_pitch + from->srcXInBytes,
                 from_pitch, from->WidthInBytes, from->Height},
                wait);
  });
}

CUresult fill_line(const char* name, CUdeviceptr to, unsigned value, std::size_t element,
                   std::size_t count, CUstream stream, bool wait = false) {
  return enter_context(name, [&](Context& context) {
    return fill(context, stream, {to, 0, 0, 0, count, 1}, value, element, wait);
  });
}

CUresult fill_rectangle(const char* name, CUdeviceptr to, std::size_t pitch, unsigned value,
                        std::size_t element, std::size_t width, std::size_t height, CUstream stream,
                        bool wait = false) {
  return enter_context(name, [&](Context& context) {
    return fill(context, stream, {to, pitch, 0, 0, width, height}, value, element, wait);
  });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return line(__func__, to, from, bytes, nullptr, true);
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return line(__func__, to, host(from), bytes, nullptr, true);
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return line(__func__, host(to), from, bytes, nullptr, true);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return line(__func__, to, from, bytes, nullptr, waits(to) || waits(from));
}
CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext /*to_context*/, CUdeviceptr from,
                      CUcontext /*from_context*/, size_t bytes) {
  return line(__func__, to, from, bytes, nullptr, waits(to) || waits(from));
}
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return line(__func__, to, from, bytes, stream, false);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return line(__func__, to, host(from), bytes, stream, false);
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return line(__func__, host(to), from, bytes, stream, false);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return line(__func__, to, from, bytes, stream, false);
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext /*to_context*/, CUdeviceptr from,
                           CUcontext /*from_context*/, size_t bytes, CUstream stream) {
  return line(__func__, to, from, bytes, stream, false);
}
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* rows) {
  return rectangle(__func__, rows, nullptr, true);
}
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* rows) {
  return rectangle(__func__, rows, nullptr, true);
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* rows, CUstream stream) {
  return rectangle(__func__, rows, stream, false);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return fill_line(__func__, to, value, 1, count, nullptr, waits(to));
}
CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
  return fill_line(__func__, to, value, 2, count, nullptr, waits(to));
}
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
  return fill_line(__func__, to, value, 4, count, nullptr, waits(to));
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return fill_line(__func__, to, value, 1, count, stream);
}
CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
  return fill_line(__func__, to, value, 2, count, stream);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return fill_line(__func__, to, value, 4, count, stream);
}
CUresult cuMemsetD2D8_v2(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                         size_t height) {
  return fill_rectangle(__func__, to, pitch, value, 1, width, height, nullptr, waits(to));
}
CUresult cuMemsetD2D16_v2(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                          size_t height) {
  return fill_rectangle(__func__, to, pitch, value, 2, width, height, nullptr, waits(to));
}
CUresult cuMemsetD2D32_v2(CUdeviceptr to, size_t pitch, unsigned value, size_t width,
                          size_t height) {
  return fill_rectangle(__func__, to, pitch, value, 4, width, height, nullptr, waits(to));
}
CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                           size_t height, CUstream stream) {
  return fill_rectangle(__func__, to, pitch, value, 1, width, height, stream);
}
CUresult cuMemsetD2D16Async(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                            size_t height, CUstream stream) {
  return fill_rectangle(__func__, to, pitch, value, 2, width, height, stream);
}
CUresult cuMemsetD2D32Async(CUdeviceptr to, size_t pitch, unsigned value, size_t width,
                            size_t height, CUstream stream) {
  return fill_rectangle(__func__, to, pitch, value, 4, width, height, stream);
}
