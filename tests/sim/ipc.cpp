// Memory of another process.
#include <cstring>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

/// What a handle says; it fits into CUipcMemHandle.
struct Ticket {
  std::uint64_t magic;
  std::uint64_t offset;
  std::uint64_t bytes;
  std::uint32_t extent;
  std::uint16_t slot;
  std::uint16_t device;
};
static_assert(sizeof(Ticket) <= sizeof(CUipcMemHandle));
constexpr std::uint64_t kMagic = 0x6370692d6d697331;

CUresult open(Context& context, CUdeviceptr* address, const CUipcMemHandle& handle) {
  Ticket ticket{};
  std::memcpy(&ticket, handle.reserved, sizeof ticket);
  if (address == nullptr || ticket.magic != kMagic) return CUDA_ERROR_INVALID_VALUE;
  Device* const device = find_device(ticket.device);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  // As on a real GPU, a process cannot open what is its own.
  if (ticket.slot == device->memory->slot()) return CUDA_ERROR_INVALID_CONTEXT;
  std::shared_ptr<Extent> extent = device->memory->look(ticket.slot, ticket.extent);
  if (extent == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return Space::get().open_ipc(*address, std::move(extent), ticket.offset, ticket.bytes, context);
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr address) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    const Place place = Space::get().find(address);
    if (handle == nullptr || place.kind != Place::Kind::kAllocated ||
        place.origin != Origin::kDevice) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const PhysicalMemory& memory = place.extent->memory();
    const Ticket ticket{kMagic,        place.base - place.extent_base,
                        place.bytes,   place.extent->id(),
                        memory.slot(), static_cast<std::uint16_t>(memory.device())};
    *handle = {};
    std::memcpy(handle->reserved, &ticket, sizeof ticket);
    return CUDA_SUCCESS;
  });
}

CUresult cuIpcOpenMemHandle(CUdeviceptr* address, CUipcMemHandle handle, unsigned /*flags*/) {
  return enter_context(__func__, [&](Context& context) { return open(context, address, handle); });
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* address, CUipcMemHandle handle, unsigned /*flags*/) {
  return enter_context(__func__, [&](Context& context) { return open(context, address, handle); });
}

CUresult cuIpcCloseMemHandle(CUdeviceptr address) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    if (const CUresult refused = refuse_unsafe_call()) return refused;
    wait_for_all(context.tails());
    return Space::get().free(address, true);
  });
}
