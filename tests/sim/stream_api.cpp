#include <ctime>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/stream.hpp"

namespace sim {
namespace {

CUresult create(Context& context, CUstream* out, unsigned flags, int priority) {
  if (out == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  const auto kind =
      flags == CU_STREAM_NON_BLOCKING ? Stream::Kind::kNonBlocking : Stream::Kind::kBlocking;
  const std::shared_ptr<Stream> stream = context.add_stream(kind, priority);
  publish_stream(stream);
  *out = handle_of(stream.get());
  return CUDA_SUCCESS;
}

CUresult destroy(CUstream handle) {
  const std::shared_ptr<Stream> stream = withdraw_stream(handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  abandon_capture(*stream);
  stream->close();
  return CUDA_SUCCESS;
}

/// The body of a call on one stream.
template <class Body>
CUresult on_stream(const char* name, CUstream handle, const Body& body) {
  return enter_context(name, [&](Context& context) -> CUresult {
    std::shared_ptr<Stream> stream;
    const CUresult refused = resolve_stream(handle, context, stream);
    return refused != CUDA_SUCCESS ? refused : body(*stream);
  });
}

/// Whether a value in memory is what a stream waits for.
template <class Value>
bool satisfied(Value now, Value wanted, unsigned flags) {
  switch (flags & 3U) {
    case CU_STREAM_WAIT_VALUE_EQ:
      return now == wanted;
    case CU_STREAM_WAIT_VALUE_AND:
      return (now & wanted) != 0;
    case CU_STREAM_WAIT_VALUE_NOR:
      return static_cast<Value>(~(now | wanted)) != 0;
    default:
      return static_cast<std::make_signed_t<Value>>(now - wanted) >= 0;
  }
}

template <class Value>
CUresult wait_value(const char* name, CUstream handle, CUdeviceptr address, Value wanted,
                    unsigned flags) {
  return on_stream(name, handle, [&](Stream& stream) {
    Context& context = stream.context();
    const auto wait = [&context, address, wanted, flags] {
      // The value can change by a store that nobody tells of: look again, ever more rarely.
      long pause_ns = 2'000;
      const auto* const place = reinterpret_cast<const Value*>(address);
      while (!satisfied(__atomic_load_n(place, __ATOMIC_ACQUIRE), wanted, flags) &&
             context.alive() && context.error() == CUDA_SUCCESS) {
        const timespec pause{0, pause_ns};
        nanosleep(&pause, nullptr);
        if (pause_ns < 200'000) pause_ns *= 2;
      }
    };
    return enqueue(stream, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, {Work::Kind::kWait, wait});
  });
}

// Faults where there is no memory. The thread sanitizer stores atomically under a lock of its own,
// which a fault would leave locked, so it must not see this.
template <class Value>
__attribute__((no_sanitize("thread"))) void touch(CUdeviceptr address) {
  static_cast<void>(*reinterpret_cast<const volatile Value*>(address));
}

template <class Value>
CUresult write_value(const char* name, CUstream handle, CUdeviceptr address, Value value) {
  return on_stream(name, handle, [&](Stream& stream) {
    const auto write = [address, value] {
      touch<Value>(address);
      __atomic_store_n(reinterpret_cast<Value*>(address), value, __ATOMIC_RELEASE);
    };
    return enqueue(stream, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, {Work::Kind::kMemory, write});
  });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return enter_context(__func__,
                       [&](Context& context) { return create(context, stream, flags, 0); });
}

CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
  return enter_context(__func__,
                       [&](Context& context) { return create(context, stream, flags, priority); });
}

CUresult cuStreamDestroy(CUstream stream) {
  return enter(__func__, [&] { return destroy(stream); });
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  return enter(__func__, [&] { return destroy(stream); });
}

CUresult cuStreamGetPriority(CUstream handle, int* priority) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *priority = stream.priority();
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetFlags(CUstream handle, unsigned* flags) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *flags = stream.kind() == Stream::Kind::kNonBlocking ? CU_STREAM_NON_BLOCKING : 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetId(CUstream handle, unsigned long long* id) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *id = stream.id();
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *context = handle_of(&stream.context());
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetCtx_v2(CUstream handle, CUcontext* context, CUgreenCtx* green) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (context == nullptr || green == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *context = handle_of(&stream.context());
    *green = nullptr;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetDevice(CUstream handle, CUdevice* device) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *device = stream.context().device().ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (const CUresult refused = refuse_if_capturing(stream)) return refused;
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    Context& context = stream.context();
    return all_reached(context.tails(stream)) ? context.error() : CUDA_ERROR_NOT_READY;
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (const CUresult refused = refuse_if_capturing(stream)) return refused;
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    Context& context = stream.context();
    wait_for_all(context.tails(stream));
    return context.error();
  });
}

CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* data,
                             unsigned flags) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (callback == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult refused = refuse_if_capturing(stream)) return refused;
    Work work{Work::Kind::kHost, nullptr};
    work.report = [handle, callback, data](CUresult status) { callback(handle, status, data); };
    return enqueue(stream, CU_GRAPH_NODE_TYPE_HOST, std::move(work));
  });
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  return on_stream(__func__, handle, [&](Stream& stream) -> CUresult {
    if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return enqueue(stream, CU_GRAPH_NODE_TYPE_HOST,
                   {Work::Kind::kHost, [function, data] { function(data); }});
  });
}

CUresult cuStreamWaitValue32(CUstream s, CUdeviceptr address, cuuint32_t value, unsigned flags) {
  return wait_value(__func__, s, address, value, flags);
}

CUresult cuStreamWaitValue32_v2(CUstream s, CUdeviceptr address, cuuint32_t value, unsigned flags) {
  return wait_value(__func__, s, address, value, flags);
}

CUresult cuStreamWaitValue64(CUstream s, CUdeviceptr address, cuuint64_t value, unsigned flags) {
  return wait_value(__func__, s, address, value, flags);
}

CUresult cuStreamWaitValue64_v2(CUstream s, CUdeviceptr address, cuuint64_t value, unsigned flags) {
  return wait_value(__func__, s, address, value, flags);
}

CUresult cuStreamWriteValue32(CUstream s, CUdeviceptr address, cuuint32_t value, unsigned /*f*/) {
  return write_value(__func__, s, address, value);
}

CUresult cuStreamWriteValue32_v2(CUstream s, CUdeviceptr address, cuuint32_t value,
                                 unsigned /*f*/) {
  return write_value(__func__, s, address, value);
}

CUresult cuStreamWriteValue64(CUstream s, CUdeviceptr address, cuuint64_t value, unsigned /*f*/) {
  return write_value(__func__, s, address, value);
}

CUresult cuStreamWriteValue64_v2(CUstream s, CUdeviceptr address, cuuint64_t value,
                                 unsigned /*f*/) {
  return write_value(__func__, s, address, value);
}
