// Stream capture.
#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"

namespace sim {
namespace {

/// The body of a call on one stream.
template <class Body>
CUresult on_stream(const char* name, CUstream handle, const Body& body) {
  return enter_context(name, [&](Context& context) -> CUresult {
    std::shared_ptr<Stream> stream;
    const CUresult refused = resolve_stream(handle, context, stream);
    return refused != CUDA_SUCCESS ? refused : body(*stream);
  });
}

CUresult info(const char* name, CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id,
              CUgraph* graph, const CUgraphNode** tail, size_t* tail_size) {
  return on_stream(name, handle, [&](Stream& stream) -> CUresult {
    CaptureInfo found;
    if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult refused = capture_info(stream, found)) return refused;
    *status = found.status;
    if (found.status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
    if (id != nullptr) *id = found.id;
    if (graph != nullptr) *graph = found.graph;
    if (tail != nullptr) *tail = found.tail;
    if (tail_size != nullptr) *tail_size = found.tail_size;
    return CUDA_SUCCESS;
  });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuStreamBeginCapture(CUstream handle) {
  return on_stream(__func__, handle, [](Stream& stream) {
    return begin_capture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  });
}

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  return on_stream(__func__, handle, [&](Stream& stream) { return begin_capture(stream, mode); });
}

CUresult cuStreamBeginCaptureToGraph(CUstream handle, CUgraph graph, const CUgraphNode* /*after*/,
                                     const CUgraphEdgeData* /*how*/, size_t /*count*/,
                                     CUstreamCaptureMode mode) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    const std::shared_ptr<Graph> into = find_graph(graph);
    return into == nullptr ? CUDA_ERROR_INVALID_VALUE : begin_capture(stream, mode, into);
  });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  return on_stream(__func__, handle, [&](Stream& stream) {
    return graph == nullptr ? CUDA_ERROR_INVALID_VALUE : end_capture(stream, *graph);
  });
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return info(__func__, handle, status, nullptr, nullptr, nullptr, nullptr);
}

CUresult cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id) {
  return info(__func__, handle, status, id, nullptr, nullptr, nullptr);
}

CUresult cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id,
                                   CUgraph* graph, const CUgraphNode** tail, size_t* tail_size) {
  return info(__func__, handle, status, id, graph, tail, tail_size);
}

CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id,
                                   CUgraph* graph, const CUgraphNode** tail,
                                   const CUgraphEdgeData** edges, size_t* tail_size) {
  if (edges != nullptr) *edges = nullptr;
  return info(__func__, handle, status, id, graph, tail, tail_size);
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return enter(__func__, [&]() -> CUresult {
    if (mode == nullptr || *mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
    *mode = exchange_capture_mode(*mode);
    return CUDA_SUCCESS;
  });
}
