#include "shim/classify/classify.hpp"
#include "shim/driver/cuda.hpp"
#include "shim/hooks/accounts.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/hooks/plain.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
namespace {

using driver::ContextId;
using driver::DeviceId;

void count(driver::Address at, std::size_t size) noexcept {
  ContextId context;
  DeviceId device;
  if (driver::current_context(context, device) == driver::Status::ok) {
    accounts().took(at, {Bytes(size), device, context});
  }
}

bool allocate_elastic(Process& process, CUdeviceptr* out, Bytes size) noexcept {
  const auto kind = process.kind_of(size);
  ContextId context;
  DeviceId device;
  if (kind == classify::Kind::plain ||
      driver::current_context(context, device) != driver::Status::ok ||
      driver::context_fault() != 0) {
    return false;
  }
  driver::context_seen(device, context);
  driver::Address address = 0;
  if (!process.allocate(size, kind, context, device, address)) {
    return false;
  }
  *out = address;
  return true;
}

template <class F>
CUresult allocate_plain(Process& process, CUdeviceptr* out, std::size_t size, F next) noexcept {
  ContextId context;
  DeviceId device;
  const bool known = driver::current_context(context, device) == driver::Status::ok;
  const CUresult result =
      take_plain(known ? &process : nullptr, device, Bytes(size), Bytes(size), next);
  if (result == CUDA_SUCCESS && known) {
    accounts().took(*out, {Bytes(size), device, context});
    process.took_plain(device, Bytes(size));
  }
  return result;
}

template <class F>
CUresult free_any(CUdeviceptr address, F next) noexcept {
  auto* process = Process::existing();
  if (process == nullptr || address == 0) {
    return next();
  }
  switch (process->free(address)) {
    case FreeAnswer::freed:
      return static_cast<CUresult>(driver::context_fault());  // of which a free tells, too
    case FreeAnswer::interior:
      return CUDA_ERROR_INVALID_VALUE;
    case FreeAnswer::lost:
    case FreeAnswer::not_ours:
      break;
  }
  const auto what = accounts().gave(address);
  const CUresult result = next();
  if (what && result != CUDA_SUCCESS) {
    accounts().took(address, *what);
  }
  return result;
}

}  // namespace

CUresult mem_alloc(Next<CUdeviceptr*, std::size_t> next, CUdeviceptr* out,
                   std::size_t size) noexcept {
  auto* process = out == nullptr ? nullptr : Process::get();
  if (process == nullptr) {
    return next(out, size);
  }
  if (allocate_elastic(*process, out, Bytes(size))) {
    return CUDA_SUCCESS;
  }
  return allocate_plain(*process, out, size, [=] { return next(out, size); });
}

CUresult mem_alloc_pitch(Next<CUdeviceptr*, std::size_t*, std::size_t, std::size_t, unsigned> next,
                         CUdeviceptr* out, std::size_t* pitch, std::size_t width,
                         std::size_t height, unsigned element) noexcept {
  auto* process = Process::existing();
  ContextId context;
  DeviceId device;
  const bool known =
      process != nullptr && driver::current_context(context, device) == driver::Status::ok;
  // The pitch is the driver's to choose: at most twice the width, and 512 bytes.
  const CUresult result = take_plain(
      known ? process : nullptr, device, Bytes((2 * width + 512) * height),
      Bytes((width + 512) * height), [=] { return next(out, pitch, width, height, element); });
  if (result == CUDA_SUCCESS && Process::get() != nullptr) {
    count(*out, *pitch * height);
    if (known) process->took_plain(device, Bytes(*pitch * height));
  }
  return result;
}

CUresult mem_alloc_async(Next<CUdeviceptr*, std::size_t, CUstream> next, CUdeviceptr* out,
                         std::size_t size, CUstream stream) noexcept {
  auto* process = Process::get();
  const auto call = [=] { return next(out, size, stream); };
  return process == nullptr ? call() : allocate_plain(*process, out, size, call);
}

CUresult mem_alloc_from_pool(Next<CUdeviceptr*, std::size_t, CUmemoryPool, CUstream> next,
                             CUdeviceptr* out, std::size_t size, CUmemoryPool pool,
                             CUstream stream) noexcept {
  auto* process = Process::get();
  const auto call = [=] { return next(out, size, pool, stream); };
  return process == nullptr ? call() : allocate_plain(*process, out, size, call);
}

CUresult mem_free(Next<CUdeviceptr> next, CUdeviceptr address) noexcept {
  return free_any(address, [=] { return next(address); });
}

CUresult mem_free_async(Next<CUdeviceptr, CUstream> next, CUdeviceptr address,
                        CUstream stream) noexcept {
  // The driver takes any device address here. Ours goes at once: waiting longer is the program's
  // loss in time only.
  return free_any(address, [=] { return next(address, stream); });
}

}  // namespace kvcached::hooks
