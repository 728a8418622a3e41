#include "tests/sim/copy.hpp"

#include <cstring>
#include <utility>

#include "tests/sim/capture.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

bool pageable(CUdeviceptr address) {
  return Space::get().find(address).kind == Place::Kind::kNothing;
}

/// The gate of synchronous calls.
CUresult refuse_synchronous(Stream& stream) {
  const CUresult refused = refuse_if_capturing(stream);
  return refused != CUDA_SUCCESS ? refused : refuse_unsafe_call();
}

CUresult finish(Context& context, Stream& stream, CUgraphNodeType type, Work work, bool wait) {
  if (const CUresult refused = enqueue(stream, type, std::move(work))) return refused;
  if (wait) stream.tail().wait();
  return context.error();
}

}  // namespace

CUresult copy(Context& context, CUstream handle, const Rows& rows, bool wait) {
  std::shared_ptr<Stream> stream;
  if (const CUresult refused = resolve_stream(handle, context, stream)) return refused;
  if (rows.width == 0 || rows.height == 0) return CUDA_SUCCESS;
  if (wait) {
    if (const CUresult refused = refuse_synchronous(*stream)) return refused;
  }
  if (!is_capturing(*stream) && (pageable(rows.from) || pageable(rows.to))) wait = true;
  const auto work = [rows] {
    for (std::size_t row = 0; row < rows.height; ++row) {
      std::memmove(pointer(rows.to + row * rows.to_pitch),
                   pointer(rows.from + row * rows.from_pitch), rows.width);
    }
  };
  return finish(context, *stream, CU_GRAPH_NODE_TYPE_MEMCPY, {Work::Kind::kMemory, work}, wait);
}

CUresult fill(Context& context, CUstream handle, const Rows& rows, unsigned value,
              std::size_t element, bool wait) {
  std::shared_ptr<Stream> stream;
  if (const CUresult refused = resolve_stream(handle, context, stream)) return refused;
  if (rows.to % element != 0) return CUDA_ERROR_INVALID_VALUE;
  if (rows.width == 0 || rows.height == 0) return CUDA_SUCCESS;
  if (wait) {
    if (const CUresult refused = refuse_synchronous(*stream)) return refused;
  }
  const auto work = [rows, value, element] {
    for (std::size_t row = 0; row < rows.height; ++row) {
      std::byte* const at = pointer(rows.to + row * rows.to_pitch);
      if (element == 1) {
        std::memset(at, static_cast<int>(value), rows.width);
        continue;
      }
      for (std::size_t i = 0; i < rows.width; ++i) std::memcpy(at + i * element, &value, element);
    }
  };
  // A plain memset is a kernel to the host: it does not wait for it.
  return finish(context, *stream, CU_GRAPH_NODE_TYPE_MEMSET, {Work::Kind::kMemory, work}, wait);
}

}  // namespace sim
