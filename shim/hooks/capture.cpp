#include <pthread.h>

#include "shim/driver/capture_gate.hpp"
#include "shim/driver/symbols.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
namespace {

using driver::capture_gate;
using driver::CapturedStream;
using driver::ContextId;

// Its address stands for the calling thread.
constinit thread_local char this_thread = 0;

template <bool ptsz>
CapturedStream identify(CUstream stream) noexcept {
  if (stream == CU_STREAM_PER_THREAD || (ptsz && stream == nullptr)) {
    return {CU_STREAM_PER_THREAD, &this_thread};
  }
  return {stream, nullptr};
}

// A thread that ends takes its default stream along, and the capture. False without memory to hear
// of it: a thread_local with a destructor would end the process then.
bool hear_of_end(const CapturedStream& stream) noexcept {
  if (stream.thread == nullptr) return true;
  static pthread_key_t key;
  static const bool made = pthread_key_create(&key, [](void* thread) {
                             capture_gate().closed({CU_STREAM_PER_THREAD, thread});
                           }) == 0;
  return made && pthread_setspecific(key, stream.thread) == 0;
}

// The context that a capture on the stream would belong to.
template <bool ptsz>
ContextId context_of(const driver::Symbols& cuda, CUstream stream) noexcept {
  CUcontext context = nullptr;
  const bool named = identify<ptsz>(stream).thread == nullptr && stream != nullptr;
  if (!named || cuda.cuStreamGetCtx(stream, &context) != CUDA_SUCCESS) {
    cuda.cuCtxGetCurrent(&context);
  }
  return ContextId{context};
}

template <bool ptsz, class F>
CUresult begin(CUstream stream, F next) noexcept {
  const auto* cuda = Process::get() == nullptr ? nullptr : driver::symbols();
  if (cuda == nullptr) {
    return next();
  }
  const ContextId context = context_of<ptsz>(*cuda, stream);
  const CapturedStream captured = identify<ptsz>(stream);
  const auto gate = capture_gate().hold();
  if (!hear_of_end(captured) || !capture_gate().reserve(gate)) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const CUresult result = next();
  if (result == CUDA_SUCCESS) {
    capture_gate().opened(gate, context, captured);
  }
  return result;
}

}  // namespace

template <bool ptsz>
CUresult begin_capture_v1(Next<CUstream> next, CUstream stream) noexcept {
  return begin<ptsz>(stream, [=] { return next(stream); });
}

template <bool ptsz>
CUresult begin_capture(Next<CUstream, CUstreamCaptureMode> next, CUstream stream,
                       CUstreamCaptureMode mode) noexcept {
  return begin<ptsz>(stream, [=] { return next(stream, mode); });
}

template <bool ptsz>
CUresult begin_capture_to_graph(
    Next<CUstream, CUgraph, const CUgraphNode*, const void*, std::size_t, CUstreamCaptureMode> next,
    CUstream stream, CUgraph graph, const CUgraphNode* dependencies, const void* edges,
    std::size_t count, CUstreamCaptureMode mode) noexcept {
  return begin<ptsz>(stream, [=] { return next(stream, graph, dependencies, edges, count, mode); });
}

template <bool ptsz>
CUresult end_capture(Next<CUstream, CUgraph*> next, CUstream stream, CUgraph* graph) noexcept {
  const CUresult result = next(stream, graph);
  const auto* cuda = Process::existing() == nullptr ? nullptr : driver::symbols();
  if (cuda != nullptr) {
    // A failed end may leave the capture open (another thread's) or close it (invalidated).
    auto state = CU_STREAM_CAPTURE_STATUS_NONE;
    auto* const asked = identify<ptsz>(stream).thread == nullptr ? stream : CU_STREAM_PER_THREAD;
    if (result == CUDA_SUCCESS || cuda->cuStreamIsCapturing(asked, &state) != CUDA_SUCCESS ||
        state == CU_STREAM_CAPTURE_STATUS_NONE) {
      capture_gate().closed(identify<ptsz>(stream));
    }
  }
  return result;
}

CUresult stream_destroy(Next<CUstream> next, CUstream stream) noexcept {
  if (Process::existing() != nullptr) {
    capture_gate().closed(identify<false>(stream));
  }
  return next(stream);
}

template CUresult begin_capture_v1<false>(Next<CUstream>, CUstream) noexcept;
template CUresult begin_capture_v1<true>(Next<CUstream>, CUstream) noexcept;
template CUresult begin_capture<false>(Next<CUstream, CUstreamCaptureMode>, CUstream,
                                       CUstreamCaptureMode) noexcept;
template CUresult begin_capture<true>(Next<CUstream, CUstreamCaptureMode>, CUstream,
                                      CUstreamCaptureMode) noexcept;
template CUresult begin_capture_to_graph<false>(
    Next<CUstream, CUgraph, const CUgraphNode*, const void*, std::size_t, CUstreamCaptureMode>,
    CUstream, CUgraph, const CUgraphNode*, const void*, std::size_t, CUstreamCaptureMode) noexcept;
template CUresult begin_capture_to_graph<true>(
    Next<CUstream, CUgraph, const CUgraphNode*, const void*, std::size_t, CUstreamCaptureMode>,
    CUstream, CUgraph, const CUgraphNode*, const void*, std::size_t, CUstreamCaptureMode) noexcept;
template CUresult end_capture<false>(Next<CUstream, CUgraph*>, CUstream, CUgraph*) noexcept;
template CUresult end_capture<true>(Next<CUstream, CUgraph*>, CUstream, CUgraph*) noexcept;

}  // namespace kvcached::hooks
