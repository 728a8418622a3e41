#include "shim/driver/capture_gate.hpp"
#include "shim/driver/cuda.hpp"
#include "shim/driver/symbols.hpp"
#include "shim/hooks/accounts.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
namespace {

using driver::ContextId;
using driver::DeviceId;

// Runs `destroy`, which may end the context, between the two calls that tell everybody.
// `gone(result)` says whether it did.
template <class F, class G>
CUresult closing(Process& process, ContextId context, F destroy, G gone) noexcept {
  process.context_closing(context);
  const CUresult result = destroy();
  const bool ended = gone(result);
  if (ended) {
    driver::capture_gate().context_gone(context);
    accounts().context_gone(context);
  }
  process.context_closed(context, ended);
  return result;
}

bool primary_active(const driver::Symbols& cuda, CUdevice device) noexcept {
  unsigned flags = 0;
  int active = 0;
  return cuda.cuDevicePrimaryCtxGetState(device, &flags, &active) == CUDA_SUCCESS && active != 0;
}

// None when the device has no primary context now.
CUcontext primary_of(const driver::Symbols& cuda, CUdevice device) noexcept {
  CUcontext context = nullptr;
  if (primary_active(cuda, device) &&
      cuda.cuDevicePrimaryCtxRetain(&context, device) == CUDA_SUCCESS) {
    cuda.cuDevicePrimaryCtxRelease_v2(device);
  }
  return context;
}

template <class F, class G>
CUresult closing_primary(CUdevice device, F destroy, G gone) noexcept {
  auto* process = Process::existing();
  const auto* cuda = process == nullptr ? nullptr : driver::symbols();
  auto* const context = cuda == nullptr ? nullptr : primary_of(*cuda, device);
  if (context == nullptr) {
    return destroy();
  }
  return closing(*process, ContextId{context}, destroy,
                 [&](CUresult result) { return gone(*cuda, result); });
}

DeviceId device_of(const driver::Symbols& cuda, CUcontext context) noexcept {
  CUdevice device = -1;
  if (cuda.cuCtxPushCurrent_v2(context) == CUDA_SUCCESS) {
    cuda.cuCtxGetDevice(&device);
    cuda.cuCtxPopCurrent_v2(&context);
  }
  return DeviceId{device};
}

template <class F>
void for_peers(CUcontext owner, F tell) noexcept {
  // Made here at the latest: what is enabled before the first allocation holds for it, too.
  const auto* cuda = Process::get() == nullptr ? nullptr : driver::symbols();
  ContextId context;
  DeviceId here;
  if (cuda != nullptr && driver::current_context(context, here) == driver::Status::ok) {
    tell(device_of(*cuda, owner), here);
  }
}

}  // namespace

CUresult ctx_destroy(Next<CUcontext> next, CUcontext context) noexcept {
  auto* process = context == nullptr ? nullptr : Process::existing();
  if (process == nullptr) {
    return next(context);
  }
  return closing(
      *process, ContextId{context}, [=] { return next(context); },
      [](CUresult result) { return result == CUDA_SUCCESS; });
}

CUresult primary_reset(Next<CUdevice> next, CUdevice device) noexcept {
  return closing_primary(
      device, [=] { return next(device); },
      [](const driver::Symbols& /*cuda*/, CUresult result) { return result == CUDA_SUCCESS; });
}

CUresult primary_release(Next<CUdevice> next, CUdevice device) noexcept {
  return closing_primary(
      device, [=] { return next(device); },
      [=](const driver::Symbols& cuda, CUresult result) {
        return result == CUDA_SUCCESS && !primary_active(cuda, device);
      });
}

CUresult enable_peer(Next<CUcontext, unsigned> next, CUcontext owner, unsigned flags) noexcept {
  const CUresult result = next(owner, flags);
  if (result == CUDA_SUCCESS) {
    for_peers(owner, driver::peer_enabled);
  }
  return result;
}

CUresult disable_peer(Next<CUcontext> next, CUcontext owner) noexcept {
  const CUresult result = next(owner);
  if (result == CUDA_SUCCESS) {
    for_peers(owner, driver::peer_disabled);
  }
  return result;
}

}  // namespace kvcached::hooks
