#include <mutex>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/context.hpp"
#include "tests/sim/device.hpp"

namespace sim {
namespace {

std::mutex& primary_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

CUresult create(CUcontext* out, unsigned flags, CUdevice ordinal) {
  Device* const device = find_device(ordinal);
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Context* const context = make_context(*device);
  if (const CUresult failed = context->start()) return failed;
  context->set_flags(flags);
  push_context(context);
  *out = handle_of(context);
  return CUDA_SUCCESS;
}

CUresult destroy(CUcontext handle) {
  Context* const context = find_context(handle);
  if (context == nullptr || context->primary()) return CUDA_ERROR_INVALID_CONTEXT;
  if (!context->alive()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  context->stop();
  if (current_context() == context) pop_context();
  return CUDA_SUCCESS;
}

/// The body of a call on a device's primary context, one at a time.
template <class Body>
CUresult with_primary(const char* name, CUdevice ordinal, const Body& body) {
  return enter(name, [&]() -> CUresult {
    Device* const device = find_device(ordinal);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    const std::lock_guard lock(primary_mutex());
    return body(*device->primary);
  });
}

CUresult release(Context& primary) {
  if (primary.retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--primary.retained == 0) primary.stop();
  return CUDA_SUCCESS;
}

CUresult reset(Context& primary) {
  primary.stop();
  primary.retained = 0;
  return CUDA_SUCCESS;
}

CUresult set_flags(Context& primary, unsigned flags) {
  primary.set_flags(flags);
  return CUDA_SUCCESS;
}

CUresult push(CUcontext handle) {
  Context* const context = find_context(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (!context->alive()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  push_context(context);
  return CUDA_SUCCESS;
}

CUresult pop(CUcontext* out) {
  Context* const context = pop_context();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (out != nullptr) *out = handle_of(context);
  return CUDA_SUCCESS;
}

CUresult synchronize(Context& context) {
  if (const CUresult refused = refuse_if_any_capturing(context)) return refused;
  wait_for_all(context.tails());
  return context.error();
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return with_primary(__func__, device, [&](Context& primary) -> CUresult {
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult failed = primary.start()) return failed;
    ++primary.retained;
    *context = handle_of(&primary);
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  return with_primary(__func__, device, release);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return with_primary(__func__, device, release);
}

CUresult cuDevicePrimaryCtxReset(CUdevice device) { return with_primary(__func__, device, reset); }

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return with_primary(__func__, device, reset);
}

CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags) {
  return with_primary(__func__, device, [&](Context& p) { return set_flags(p, flags); });
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  return with_primary(__func__, device, [&](Context& p) { return set_flags(p, flags); });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  return with_primary(__func__, device, [&](Context& primary) -> CUresult {
    if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *flags = primary.flags();
    *active = primary.alive() ? 1 : 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxCreate(CUcontext* context, unsigned flags, CUdevice device) {
  return enter(__func__, [&] { return create(context, flags, device); });
}

CUresult cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
  return enter(__func__, [&] { return create(context, flags, device); });
}

CUresult cuCtxCreate_v3(CUcontext* context, CUexecAffinityParam* /*affinity*/, int /*count*/,
                        unsigned flags, CUdevice device) {
  return enter(__func__, [&] { return create(context, flags, device); });
}

CUresult cuCtxCreate_v4(CUcontext* context, CUctxCreateParams* /*parameters*/, unsigned flags,
                        CUdevice device) {
  return enter(__func__, [&] { return create(context, flags, device); });
}

CUresult cuCtxDestroy(CUcontext context) {
  return enter(__func__, [&] { return destroy(context); });
}

CUresult cuCtxDestroy_v2(CUcontext context) {
  return enter(__func__, [&] { return destroy(context); });
}

CUresult cuCtxPushCurrent(CUcontext context) {
  return enter(__func__, [&] { return push(context); });
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return enter(__func__, [&] { return push(context); });
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  return enter(__func__, [&] { return pop(context); });
}

CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return enter(__func__, [&] { return pop(context); });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  return enter(__func__, [&]() -> CUresult {
    Context* const context = handle == nullptr ? nullptr : find_context(handle);
    if (handle != nullptr && context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (context != nullptr && !context->alive()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    replace_context(context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  return enter(__func__, [&]() -> CUresult {
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *context = handle_of(current_context());
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetDevice(CUdevice* device) {
  return enter(__func__, [&]() -> CUresult {
    Context* const context = current_context();
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    *device = context->device().ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext handle) {
  return enter(__func__, [&]() -> CUresult {
    Context* const context = handle == nullptr ? current_context() : find_context(handle);
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    *device = context->device().ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetFlags(unsigned* flags) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *flags = context.flags();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSetFlags(unsigned flags) {
  return enter_context(__func__, [&](Context& context) { return set_flags(context, flags); });
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long* id) {
  return enter(__func__, [&]() -> CUresult {
    Context* const context = handle == nullptr ? current_context() : find_context(handle);
    if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->alive()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *id = context->id();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetApiVersion(CUcontext /*handle*/, unsigned* version) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *version = 3020;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSynchronize() { return enter_context(__func__, synchronize); }

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  return enter(__func__, [&]() -> CUresult {
    Context* const context = handle == nullptr ? current_context() : find_context(handle);
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->alive()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return synchronize(*context);
  });
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return enter_context(__func__, [&](Context&) {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSetLimit(CUlimit limit, size_t /*value*/) {
  return enter_context(__func__, [&](Context&) {
    return limit >= CU_LIMIT_MAX ? CUDA_ERROR_UNSUPPORTED_LIMIT : CUDA_SUCCESS;
  });
}

CUresult cuCtxGetLimit(size_t* value, CUlimit limit) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (limit >= CU_LIMIT_MAX) return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = limit == CU_LIMIT_STACK_SIZE ? 1024 : 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetCacheConfig(CUfunc_cache* config) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *config = CU_FUNC_CACHE_PREFER_NONE;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSetCacheConfig(CUfunc_cache /*config*/) {
  return enter_context(__func__, [](Context&) { return CUDA_SUCCESS; });
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    Context* const other = find_context(peer);
    if (other == nullptr || other == &context) return CUDA_ERROR_INVALID_CONTEXT;
    return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  return enter_context(__func__, [&](Context&) {
    return find_context(peer) == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
  });
}
