#include "tests/sim/capture.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <utility>

#include "tests/sim/context.hpp"

namespace sim {
namespace {

struct Captures {
  std::mutex mutex;
  std::vector<std::shared_ptr<Capture>> open;
  std::atomic<std::size_t> count{0};  // open.size(), to look at without the lock
  std::uint64_t last_id = 0;
};

Captures& captures() {
  static Captures& all = *new Captures;
  return all;
}

thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

bool none_open() { return captures().count.load(std::memory_order_acquire) == 0; }

/// Under the lock, as all that follow: the capture is no more one that forbids anything.
void close(const Capture& capture) {
  auto& open = captures().open;
  open.erase(std::remove_if(open.begin(), open.end(),
                            [&](const auto& other) { return other.get() == &capture; }),
             open.end());
  captures().count = open.size();
}

bool forbids_unsafe(const Capture& capture) {
  if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  if (capture.mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  if (capture.thread == thread_number()) return true;
  return thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
         capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
}

/// Using the legacy stream while a stream that it waits for captures would tie it to the capture,
/// which is lost; asking about it does no harm.
CUresult refuse_implicit_join(Stream& stream, bool asks = false) {
  if (stream.kind() != Stream::Kind::kLegacy) return CUDA_SUCCESS;
  bool found = false;
  for (const std::shared_ptr<Stream>& other : stream.context().streams()) {
    if (other->capture == nullptr || !other->blocking()) continue;
    other->capture->invalid = other->capture->invalid || !asks;
    found = true;
  }
  return found ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_SUCCESS;
}

void add_ancestors(Node* node, std::set<Node*>& out) {
  if (!out.insert(node).second) return;
  for (Node* before : node->after) add_ancestors(before, out);
}

/// Whether all that joined the capture leads to the origin's last nodes.
bool all_joined(Stream& origin) {
  std::set<Node*> before;
  for (Node* node : origin.capture_tail) add_ancestors(node, before);
  for (const std::shared_ptr<Stream>& stream : origin.context().streams()) {
    if (stream->capture != origin.capture) continue;
    for (Node* node : stream->capture_tail) {
      if (before.count(node) == 0) return false;
    }
  }
  return true;
}

void detach_streams(Context& context, const Capture& capture) {
  for (const std::shared_ptr<Stream>& stream : context.streams()) {
    if (stream->capture.get() != &capture) continue;
    stream->capture = nullptr;
    stream->capture_tail.clear();
  }
}

}  // namespace

CUresult enqueue(Stream& stream, CUgraphNodeType type, Work work) {
  if (!none_open()) {
    const std::lock_guard lock(captures().mutex);
    if (stream.capture != nullptr) {
      if (stream.capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
      auto node = std::make_unique<Node>(Node{type, std::move(work), stream.capture_tail});
      stream.capture_tail = {node.get()};
      stream.capture->graph->nodes.push_back(std::move(node));
      return CUDA_SUCCESS;
    }
    if (const CUresult refused = refuse_implicit_join(stream)) return refused;
  }
  stream.context().submit(stream, std::move(work), {});
  return CUDA_SUCCESS;
}

CUresult refuse_unsafe_call() {
  if (none_open()) return CUDA_SUCCESS;
  const std::lock_guard lock(captures().mutex);
  bool refused = false;
  for (const std::shared_ptr<Capture>& capture : captures().open) {
    if (!forbids_unsafe(*capture)) continue;
    capture->invalid = true;
    refused = true;
  }
  return refused ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult refuse_if_capturing(Stream& stream) {
  if (none_open()) return CUDA_SUCCESS;
  const std::lock_guard lock(captures().mutex);
  if (stream.capture != nullptr) {
    stream.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return refuse_implicit_join(stream);
}

CUresult refuse_if_any_capturing(Context& context) {
  if (none_open()) return CUDA_SUCCESS;
  const std::lock_guard lock(captures().mutex);
  bool found = false;
  for (const std::shared_ptr<Stream>& stream : context.streams()) {
    if (stream->capture == nullptr) continue;
    stream->capture->invalid = true;
    found = true;
  }
  return found ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult begin_capture(Stream& stream, CUstreamCaptureMode mode, std::shared_ptr<Graph> graph) {
  if (mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  if (stream.kind() == Stream::Kind::kLegacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const std::lock_guard lock(captures().mutex);
  if (stream.capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (graph == nullptr) graph = std::make_shared<Graph>();
  stream.capture = std::make_shared<Capture>(
      Capture{++captures().last_id, mode, thread_number(), &stream, std::move(graph), false});
  stream.capture_tail.clear();
  captures().open.push_back(stream.capture);
  captures().count = captures().open.size();
  return CUDA_SUCCESS;
}

CUresult end_capture(Stream& stream, CUgraph& out) {
  out = nullptr;
  const std::lock_guard lock(captures().mutex);
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != &stream) {
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  }
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != thread_number()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  const bool joined = all_joined(stream);
  detach_streams(stream.context(), *capture);
  close(*capture);
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!joined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  out = publish_graph(capture->graph);
  return CUDA_SUCCESS;
}

CUresult capture_info(Stream& stream, CaptureInfo& out) {
  out = {};
  if (none_open()) return CUDA_SUCCESS;
  const std::lock_guard lock(captures().mutex);
  if (stream.capture == nullptr) return refuse_implicit_join(stream, true);
  out.status = stream.capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                       : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  out.id = stream.capture->id;
  out.graph = reinterpret_cast<CUgraph>(stream.capture->graph.get());
  out.tail = reinterpret_cast<const CUgraphNode*>(stream.capture_tail.data());
  out.tail_size = stream.capture_tail.size();
  return CUDA_SUCCESS;
}

void abandon_capture(Stream& stream) {
  const std::lock_guard lock(captures().mutex);
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) return;
  if (capture->origin == &stream) {
    detach_streams(stream.context(), *capture);
    close(*capture);
  } else {
    capture->invalid = true;
    stream.capture = nullptr;
  }
}

CUresult capture_mark(Stream& stream, bool& capturing, CapturedMark& out) {
  capturing = false;
  if (none_open()) return CUDA_SUCCESS;
  const std::lock_guard lock(captures().mutex);
  if (stream.capture == nullptr) return refuse_implicit_join(stream);
  if (stream.capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  capturing = true;
  out = {stream.capture, stream.capture_tail};
  return CUDA_SUCCESS;
}

CUresult join_capture(Stream& stream, const CapturedMark& mark) {
  const std::lock_guard lock(captures().mutex);
  const auto& open = captures().open;
  if (std::find(open.begin(), open.end(), mark.capture) == open.end()) {
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  if (mark.capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream.kind() == Stream::Kind::kLegacy) {
    mark.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  if (stream.capture != nullptr && stream.capture != mark.capture) {
    stream.capture->invalid = mark.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  stream.capture = mark.capture;
  for (Node* node : mark.tail) {
    auto& tail = stream.capture_tail;
    if (std::find(tail.begin(), tail.end(), node) == tail.end()) tail.push_back(node);
  }
  return CUDA_SUCCESS;
}

bool is_capturing(Stream& stream) {
  if (none_open()) return false;
  const std::lock_guard lock(captures().mutex);
  return stream.capture != nullptr;
}

CUstreamCaptureMode exchange_capture_mode(CUstreamCaptureMode mode) {
  return std::exchange(thread_mode, mode);
}

}  // namespace sim
