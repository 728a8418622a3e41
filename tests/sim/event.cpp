#include "tests/sim/event.hpp"

#include <ctime>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "tests/sim/call.hpp"

namespace sim {
namespace {

struct Events {
  std::shared_mutex mutex;
  std::unordered_map<CUevent, std::shared_ptr<Event>> all;
};

Events& events() {
  static Events& all = *new Events;
  return all;
}

/// Work that notes when it is done.
Work stamp(const std::shared_ptr<std::atomic<std::int64_t>>& time) {
  return {Work::Kind::kMark, [time] {
            timespec now{};
            clock_gettime(CLOCK_MONOTONIC, &now);
            time->store(std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec);
          }};
}

CUresult record(Event& event, Stream& stream) {
  bool capturing = false;
  CapturedMark captured;
  if (const CUresult refused = capture_mark(stream, capturing, captured)) return refused;
  Record made{{}, std::make_shared<std::atomic<std::int64_t>>(0)};
  if (!capturing) made.marks = {stream.context().submit(stream, stamp(made.time), {})};
  const std::lock_guard lock(event.mutex);
  event.record = std::move(made);
  event.captured = std::move(captured);
  return CUDA_SUCCESS;
}

/// The last recording, unless it was a captured one.
CUresult last_record(Event& event, Record& out) {
  const std::lock_guard lock(event.mutex);
  if (event.captured.capture != nullptr) {
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  out = event.record;
  return CUDA_SUCCESS;
}

CUresult elapsed(float* milliseconds, CUevent from, CUevent to) {
  const std::shared_ptr<Event> first = find_event(from);
  const std::shared_ptr<Event> second = find_event(to);
  if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (first == nullptr || second == nullptr ||
      ((first->flags | second->flags) & CU_EVENT_DISABLE_TIMING) != 0) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  Record begin;
  Record end;
  if (const CUresult refused = last_record(*first, begin)) return refused;
  if (const CUresult refused = last_record(*second, end)) return refused;
  if (begin.time == nullptr || end.time == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!all_reached(begin.marks) || !all_reached(end.marks)) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(*end.time - *begin.time) / 1e6F;
  return CUDA_SUCCESS;
}

CUresult destroy(CUevent event) {
  const std::unique_lock lock(events().mutex);
  return events().all.erase(event) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult record(Context& context, CUevent event, CUstream stream) {
  std::shared_ptr<Stream> in;
  if (const CUresult refused = resolve_stream(stream, context, in)) return refused;
  const std::shared_ptr<Event> found = find_event(event);
  return found == nullptr ? CUDA_ERROR_INVALID_HANDLE : record(*found, *in);
}

/// The context of a call that names one, nullptr meaning the current one.
CUresult named_context(CUcontext handle, Context*& out) {
  out = handle == nullptr ? current_context() : find_context(handle);
  if (out == nullptr || !out->alive()) return CUDA_ERROR_INVALID_CONTEXT;
  return out->error();
}

}  // namespace

std::size_t count_events() {
  const std::shared_lock lock(events().mutex);
  return events().all.size();
}

std::shared_ptr<Event> find_event(CUevent handle) {
  const std::shared_lock lock(events().mutex);
  const auto found = events().all.find(handle);
  return found == events().all.end() ? nullptr : found->second;
}

}  // namespace sim

using namespace sim;

CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (event == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto made = std::make_shared<Event>();
    made->flags = flags;
    made->context = &context;
    *event = reinterpret_cast<CUevent>(made.get());
    const std::unique_lock lock(events().mutex);
    events().all[*event] = std::move(made);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventDestroy(CUevent event) {
  return enter(__func__, [&] { return destroy(event); });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return enter(__func__, [&] { return destroy(event); });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return enter_context(__func__, [&](Context& context) { return record(context, event, stream); });
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned /*flags*/) {
  return enter_context(__func__, [&](Context& context) { return record(context, event, stream); });
}

CUresult cuEventQuery(CUevent event) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    const std::shared_ptr<Event> found = find_event(event);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    Record last;
    if (const CUresult refused = last_record(*found, last)) return refused;
    if (!all_reached(last.marks)) return CUDA_ERROR_NOT_READY;
    return context.error();
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    const std::shared_ptr<Event> found = find_event(event);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    Record last;
    if (const CUresult refused = last_record(*found, last)) return refused;
    wait_for_all(last.marks);
    return context.error();
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent from, CUevent to) {
  return enter_context(__func__, [&](Context&) { return elapsed(milliseconds, from, to); });
}

CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent from, CUevent to) {
  return enter_context(__func__, [&](Context&) { return elapsed(milliseconds, from, to); });
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned /*flags*/) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    std::shared_ptr<Stream> waiting;
    if (const CUresult refused = resolve_stream(stream, context, waiting)) return refused;
    const std::shared_ptr<Event> found = find_event(event);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Record last;
    {
      const std::lock_guard lock(found->mutex);
      if (found->captured.capture != nullptr) return join_capture(*waiting, found->captured);
      last = found->record;
    }
    // Nothing that was submitted outside can be a node of the graph.
    if (is_capturing(*waiting)) {
      return last.marks.empty() ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (!all_reached(last.marks)) {
      waiting->context().submit(*waiting, {Work::Kind::kMark, nullptr}, std::move(last.marks));
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxRecordEvent(CUcontext handle, CUevent event) {
  return enter(__func__, [&]() -> CUresult {
    Context* context = nullptr;
    if (const CUresult refused = named_context(handle, context)) return refused;
    const std::shared_ptr<Event> found = find_event(event);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = refuse_if_any_capturing(*context)) return refused;
    Record made{{}, std::make_shared<std::atomic<std::int64_t>>(0)};
    for (const std::shared_ptr<Stream>& stream : context->streams()) {
      made.marks.push_back(stream->push(stamp(made.time), {}));
    }
    const std::lock_guard lock(found->mutex);
    found->record = std::move(made);
    found->captured = {};
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxWaitEvent(CUcontext handle, CUevent event) {
  return enter(__func__, [&]() -> CUresult {
    Context* context = nullptr;
    if (const CUresult refused = named_context(handle, context)) return refused;
    const std::shared_ptr<Event> found = find_event(event);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = refuse_if_any_capturing(*context)) return refused;
    Record last;
    if (const CUresult refused = last_record(*found, last)) return refused;
    for (const std::shared_ptr<Stream>& stream : context->streams()) {
      if (!stream->closed()) stream->push({Work::Kind::kMark, nullptr}, last.marks);
    }
    return CUDA_SUCCESS;
  });
}
