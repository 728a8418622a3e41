#include <unistd.h>

#include <atomic>
#include <cstring>

#include "shim/driver/cuda.hpp"
#include "shim/driver/default_stream.hpp"
#include "shim/hooks/accounts.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/log.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {
namespace {

std::optional<Elastic> elastic_at(CUdeviceptr address) noexcept {
  auto* process = Process::existing();
  return process == nullptr ? std::nullopt : process->find(address);
}

// Far above the ids that the driver gives its own allocations.
constexpr std::uint64_t kIdBase = 1ULL << 48;

template <class T>
void answer(void* data, T value) noexcept {
  std::memcpy(data, &value, sizeof value);
}

// Only where a rule may make memory elastic do look-ups lead to our doors of copies and fills (see
// entry/lookup.cpp). Elsewhere nobody would wait, so that the driver keeps its say: it refuses.
bool waits_are_ours() noexcept { return Process::existing()->settings().match.has_value(); }

// Where the driver speaks of one mapping, or of the reserved range, the engine expects the
// allocation. What is not named here the driver answers right by itself.
void correct(void* data, CUpointer_attribute attribute, const Elastic& buffer) noexcept {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      answer(data, buffer.context.context);
      break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      answer(data, kIdBase + buffer.id);
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      answer(data, buffer.base);
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      answer(data, buffer.size.value);
      break;
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      answer(data, bytes_of(pages_up(buffer.size)).value);
      break;
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      answer(data, buffer.base);
      break;
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      answer(data, kIdBase + buffer.id);
      break;
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      // Plain memory always is, also where there is nothing that decompresses.
      if (!driver::decompresses(buffer.device)) answer(data, true);
      break;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      // The driver has written all of it: how much that is, its manual does not say.
      if (waits_are_ours()) answer(data, buffer.sync_memops);
      break;
    default:
      break;
  }
}

// Success: other devices may reach the address behind the driver's back.
CUresult pin(CUdeviceptr address) noexcept {
  if (!elastic_at(address)) {
    return CUDA_SUCCESS;
  }
  if (kvcached_watched.unclaimed.load(std::memory_order_acquire) != 0 &&
      !Process::existing()->back_unclaimed()) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const auto buffer = elastic_at(address);
  if (!buffer || buffer->whole) {
    return CUDA_SUCCESS;
  }
  static constinit std::atomic<bool> said{false};
  if (!said.exchange(true)) {
    warn("elastic memory at {:#x} was to be pinned: refused, its pages come and go", address);
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

// What was begun before went to the streams of the context that was current then: the memory's own,
// or the caller's. Other threads' default streams are out of reach.
CUresult wait_for_work_on(const Elastic& buffer) noexcept {
  driver::ContextId current;
  driver::DeviceId device;
  const bool elsewhere =
      driver::current_context(current, device) == driver::Status::ok && current != buffer.context;
  for (const auto stream : {driver::DefaultStream::legacy, driver::DefaultStream::per_thread}) {
    CUresult result = driver::wait_for(stream, buffer.context);
    if (result == CUDA_SUCCESS && elsewhere) result = driver::wait_for(stream);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

// The driver's own does nothing for mapped memory, so its part is done by the doors of copies and
// fills. pre: pin() said yes.
CUresult set_sync_memops(CUdeviceptr address, const Elastic& buffer, bool on) noexcept {
  Process& process = *Process::existing();
  const bool changed = process.set_sync_memops(address, on);
  if (!on) return CUDA_SUCCESS;
  const CUresult result = wait_for_work_on(buffer);
  if (result != CUDA_SUCCESS && changed) process.set_sync_memops(address, false);
  return result;
}

}  // namespace

CUresult mem_get_address_range(Next<CUdeviceptr*, std::size_t*, CUdeviceptr> next,
                               CUdeviceptr* base, std::size_t* size, CUdeviceptr address) noexcept {
  const auto buffer = elastic_at(address);
  if (!buffer) {
    return next(base, size, address);
  }
  if (base != nullptr) *base = buffer->base;
  if (size != nullptr) *size = buffer->size.value;
  return CUDA_SUCCESS;
}

CUresult pointer_get_attribute(Next<void*, CUpointer_attribute, CUdeviceptr> next, void* data,
                               CUpointer_attribute attribute, CUdeviceptr address) noexcept {
  if (attribute == CU_POINTER_ATTRIBUTE_P2P_TOKENS) {
    if (const CUresult refused = pin(address)) return refused;
  }
  const CUresult result = next(data, attribute, address);
  const auto buffer =
      result == CUDA_SUCCESS && data != nullptr ? elastic_at(address) : std::nullopt;
  if (!buffer) {
    return result;
  }
  correct(data, attribute, *buffer);
  // Whoever asks for the tokens sets the other attribute by it.
  return attribute == CU_POINTER_ATTRIBUTE_P2P_TOKENS && waits_are_ours()
             ? set_sync_memops(address, *buffer, true)
             : result;
}

CUresult pointer_set_attribute(Next<const void*, CUpointer_attribute, CUdeviceptr> next,
                               const void* value, CUpointer_attribute attribute,
                               CUdeviceptr address) noexcept {
  if (attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || value == nullptr) {
    return next(value, attribute, address);
  }
  if (const CUresult refused = pin(address)) return refused;
  const CUresult result = next(value, attribute, address);
  // Whatever else the driver finds amiss is the program's to hear.
  const bool only_mapped = result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_SUPPORTED;
  const auto buffer = elastic_at(address);
  if (!only_mapped || !buffer || !waits_are_ours()) {
    return result;
  }
  unsigned on = 0;
  std::memcpy(&on, value, sizeof on);
  return set_sync_memops(address, *buffer, on != 0);
}

CUresult pointer_get_attributes(Next<unsigned, CUpointer_attribute*, void**, CUdeviceptr> next,
                                unsigned count, CUpointer_attribute* attributes, void** data,
                                CUdeviceptr address) noexcept {
  const CUresult result = next(count, attributes, data, address);
  if (result == CUDA_SUCCESS) {
    if (const auto buffer = elastic_at(address)) {
      for (unsigned i = 0; i < count; ++i) {
        if (data[i] != nullptr) correct(data[i], attributes[i], *buffer);
      }
    }
  }
  return result;
}

CUresult ipc_get_mem_handle(Next<CUipcMemHandle*, CUdeviceptr> next, CUipcMemHandle* out,
                            CUdeviceptr address) noexcept {
  const auto buffer = elastic_at(address);
  if (!buffer) {
    return next(out, address);
  }
  static constinit std::atomic<bool> said{false};
  if (!said.exchange(true)) {
    warn("an IPC handle was asked for elastic memory at {:#x}: refused, it cannot be shared",
         address);
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult mem_host_get_device_pointer(Next<CUdeviceptr*, void*, unsigned> next, CUdeviceptr* out,
                                     void* host, unsigned flags) noexcept {
  // The driver takes any mapped address here.
  if (elastic_at(reinterpret_cast<CUdeviceptr>(host))) return CUDA_ERROR_INVALID_VALUE;
  return next(out, host, flags);
}

CUresult mem_retain_handle(Next<CUmemGenericAllocationHandle*, void*> next,
                           CUmemGenericAllocationHandle* out, void* address) noexcept {
  if (elastic_at(reinterpret_cast<CUdeviceptr>(address))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = next(out, address);
  if (result == CUDA_SUCCESS && Process::existing() != nullptr) {
    accounts().retained(*out);
  }
  return result;
}

CUresult mem_get_range_handle(Next<void*, CUdeviceptr, std::size_t, int, unsigned long long> next,
                              void* out, CUdeviceptr address, std::size_t size, int type,
                              unsigned long long flags) noexcept {
  if (const CUresult refused = pin(address)) return refused;
  const auto buffer = elastic_at(address);
  // What is asked for is to be a multiple of the host's pages, whatever the allocation's size.
  const auto round = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) - 1;
  if (buffer && size > ((buffer->base + buffer->size.value + round) & ~round) - address) {
    return CUDA_ERROR_INVALID_VALUE;  // as of one allocation: what follows may be another's
  }
  return next(out, address, size, type, flags);
}

}  // namespace kvcached::hooks
