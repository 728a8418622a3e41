#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tests/sim/graph.hpp"
#include "tests/sim/stream.hpp"

namespace sim {

/// What one cuStreamBeginCapture began.
struct Capture {
  std::uint64_t id;
  CUstreamCaptureMode mode;
  std::uint64_t thread;
  Stream* origin;
  std::shared_ptr<Graph> graph;
  bool invalid;
};

/// What an event that was recorded in a capturing stream stands for.
struct CapturedMark {
  std::shared_ptr<Capture> capture;
  std::vector<Node*> tail;
};

struct CaptureInfo {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  std::uint64_t id = 0;
  CUgraph graph = nullptr;
  const CUgraphNode* tail = nullptr;
  std::size_t tail_size = 0;
};

/// Does the work in stream order, or makes it a node of the stream's capture.
CUresult enqueue(Stream& stream, CUgraphNodeType type, Work work);

/// The gate of calls that are "potentially unsafe" during a capture: 900, and the captures that
/// forbid the call are lost.
CUresult refuse_unsafe_call();

/// The gate of calls that wait for or look at a stream. Refused while it is capturing.
CUresult refuse_if_capturing(Stream& stream);

/// The gate of calls on everything in a context: refused, and all its captures lost, if there are
/// any. In a relaxed thread too.
CUresult refuse_if_any_capturing(Context& context);

/// Into `graph`, or a new one where it is null.
CUresult begin_capture(Stream& stream, CUstreamCaptureMode mode,
                       std::shared_ptr<Graph> graph = nullptr);
CUresult end_capture(Stream& stream, CUgraph& out);
CUresult capture_info(Stream& stream, CaptureInfo& out);
/// A stream that goes takes the capture it began with it.
void abandon_capture(Stream& stream);

/// Whether the stream captures; then the event's meaning is in `out`.
CUresult capture_mark(Stream& stream, bool& capturing, CapturedMark& out);
/// The stream waits for a captured event, and so joins its capture.
CUresult join_capture(Stream& stream, const CapturedMark& mark);
/// Whether this stream captures, so that a mark of outside work cannot be waited for.
bool is_capturing(Stream& stream);

CUstreamCaptureMode exchange_capture_mode(CUstreamCaptureMode mode);

}  // namespace sim
