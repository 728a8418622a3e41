#include "shim/driver/cuda.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "shim/driver/capture_gate.hpp"
#include "shim/driver/contexts.hpp"
#include "shim/driver/immortal.hpp"
#include "shim/driver/peers.hpp"
#include "shim/driver/scopes.hpp"
#include "shim/driver/symbols.hpp"
#include "shim/log.hpp"

namespace kvcached::driver {
namespace {

constinit std::atomic<bool> exiting{false};

// Errors of work that ran: sticky, the context answers them to every later call.
bool is_fault(CUresult result) noexcept {
  return result == CUDA_ERROR_ECC_UNCORRECTABLE ||
         (result >= CUDA_ERROR_ILLEGAL_ADDRESS && result <= CUDA_ERROR_LAUNCH_FAILED);
}

Status status_of(CUresult result, const char* call) noexcept {
  switch (result) {
    case CUDA_SUCCESS:
      return Status::ok;
    case CUDA_ERROR_OUT_OF_MEMORY:
      return Status::out_of_memory;
    case CUDA_ERROR_NOT_READY:
      return Status::not_now;
    case CUDA_ERROR_NOT_SUPPORTED:
      return Status::unsupported;
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_INVALID_CONTEXT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
      return Status::lost;
    default:
      break;
  }
  if (is_fault(result)) {
    return Status::lost;
  }
  if (result >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED &&
      result <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD) {
    return Status::not_now;
  }
  warn("{} failed with CUDA error {}", call, static_cast<int>(result));
  return Status::failed;
}

// Why a thread could not be made ready: a context that faulted may answer so, too.
Status refused(const Relaxed& relaxed) noexcept {
  return is_fault(relaxed.result()) ? Status::lost : Status::not_now;
}

CUmemLocation on(DeviceId device) noexcept {
  CUmemLocation location{};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device.ordinal;
  return location;
}

// 0: the driver does not tell.
int device_count(const Symbols& cuda) noexcept {
  static std::atomic<int> count{0};
  int known = count.load(std::memory_order_relaxed);
  if (known == 0 && cuda.cuDeviceGetCount(&known) == CUDA_SUCCESS)
    count.store(known, std::memory_order_relaxed);
  return known;
}

// Every plain allocation asks: where there is but one device, the driver is not.
bool current_device(const Symbols& cuda, CUdevice& out) noexcept {
  if (device_count(cuda) != 1) return cuda.cuCtxGetDevice(&out) == CUDA_SUCCESS;
  out = 0;
  return true;
}

class CudaDriver final : public Driver {
 public:
  explicit CudaDriver(const Symbols& cuda) noexcept : cuda_(cuda) {}

  Status reserve(Bytes size, Address& out) noexcept override {
    if (exiting) return Status::lost;
    CUdeviceptr address = 0;
    const auto result = cuda_.cuMemAddressReserve(&address, size.value, kPageSize.value, 0, 0);
    out = address;
    return status_of(result, "cuMemAddressReserve");
  }

  Status unreserve(Address base, Bytes size) noexcept override {
    if (exiting) return Status::lost;
    if (!undo_refused(base, size)) return Status::failed;
    const auto lock = lock_peers();
    const auto status = status_of(cuda_.cuMemAddressFree(base, size.value), "cuMemAddressFree");
    if (lock && status == Status::ok) peers_.forget(base, size);
    return status;
  }

  Status create(DeviceId device, Bytes size, Handle& out) noexcept override {
    if (exiting) return Status::lost;
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = on(device);
    int rdma = 0;
    cuda_.cuDeviceGetAttribute(&rdma, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED,
                               device.ordinal);
    properties.allocFlags.gpuDirectRDMACapable = rdma != 0 ? 1 : 0;
    CUmemGenericAllocationHandle handle = 0;
    const auto result = cuda_.cuMemCreate(&handle, size.value, &properties, 0);
    out = Handle{handle};
    return status_of(result, "cuMemCreate");
  }

  Status release(Handle handle) noexcept override {
    if (exiting) return Status::lost;
    return status_of(cuda_.cuMemRelease(handle.value), "cuMemRelease");
  }

  Status map(Address at, Bytes size, Handle handle, DeviceId device) noexcept override {
    if (exiting) return Status::lost;
    if (!undo_refused(at, size)) return Status::failed;
    const auto lock = lock_peers();
    if (lock && !peers_.mapped(at, {size, device})) return Status::failed;
    const Status status = map_with_access(at, size, handle, device);
    if (lock && status != Status::ok) peers_.unmapped(at);
    return status;
  }

  Status unmap(Address at, Bytes size) noexcept override {
    if (exiting) return Status::lost;
    const auto lock = lock_peers();
    const auto status = status_of(cuda_.cuMemUnmap(at, size.value), "cuMemUnmap");
    if (lock && status == Status::ok) peers_.unmapped(at);
    return status;
  }

  Status fence(ContextId context, Fence& out) noexcept override {
    if (exiting) return Status::lost;
    const Contexts::Use use(contexts_, context);
    if (use.status() != Status::ok) return use.status();
    if (cuda_.cuCtxRecordEvent == nullptr) {
      out = Fence{};
      return wait_for_all(context);
    }
    const Relaxed relaxed(cuda_);
    if (!relaxed) return refused(relaxed);
    CUevent event = nullptr;
    {
      const Within within(cuda_, context);
      if (within.result() != CUDA_SUCCESS) {
        return status_of(within.result(), "cuCtxPushCurrent");
      }
      const auto result = cuda_.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
      if (result != CUDA_SUCCESS) {
        return status_of(result, "cuEventCreate");
      }
    }
    auto status = Status::not_now;
    {
      const auto gate = capture_gate().hold();
      if (!capture_gate().open(gate)) {
        auto* over = static_cast<CUcontext>(context.context);
        status = status_of(cuda_.cuCtxRecordEvent(over, event), "cuCtxRecordEvent");
      }
    }
    if (status != Status::ok) {
      drop_fence(context, Fence{event});
      event = nullptr;
    }
    out = Fence{event};
    return status;
  }

  Status fence_passed(ContextId context, Fence fence) noexcept override {
    if (exiting) return Status::lost;
    if (fence.event == nullptr) return Status::ok;
    const Relaxed relaxed(cuda_);
    if (!relaxed) return refused(relaxed);
    return in_context(context, "cuEventQuery",
                      [&] { return cuda_.cuEventQuery(static_cast<CUevent>(fence.event)); });
  }

  void drop_fence(ContextId context, Fence fence) noexcept override {
    if (exiting || fence.event == nullptr || dropped(context, fence)) return;
    const std::lock_guard lock(undropped_mutex_);
    try {
      undropped_.push_back({context, fence});
    } catch (...) {
      warn("no memory to remember an event of ours: it stays until its context goes");
    }
  }

  void tend() noexcept override {
    if (exiting) return;
    const std::lock_guard lock(undropped_mutex_);
    std::erase_if(undropped_,
                  [this](const Open& open) { return dropped(open.context, open.fence); });
  }

  Status synchronize(ContextId context) noexcept override {
    // By a fence: captures may begin while we wait, which a wait for the context would ruin.
    Fence all;
    auto status = fence(context, all);
    if (status == Status::ok && all.event != nullptr) {
      const Relaxed relaxed(cuda_);
      status = !relaxed ? refused(relaxed) : in_context(context, "cuEventSynchronize", [&] {
        return cuda_.cuEventSynchronize(static_cast<CUevent>(all.event));
      });
      drop_fence(context, all);
    }
    return status;
  }

  Status memory_info(DeviceId device, MemoryInfo& out) noexcept override {
    if (exiting) return Status::lost;
    ContextId context;
    DeviceId current;
    if (current_context(context, current) == Status::ok && current == device) {
      return ask_memory(out);
    }
    {
      const std::lock_guard lock(latest_mutex_);
      const auto seen = latest_.find(device.ordinal);
      if (seen == latest_.end()) return Status::lost;
      context = seen->second;
    }
    const Contexts::Use use(contexts_, context);
    if (use.status() != Status::ok) return use.status();
    const Within within(cuda_, context);
    return within.result() == CUDA_SUCCESS ? ask_memory(out)
                                           : status_of(within.result(), "cuCtxPushCurrent");
  }

  void adopt_thread() noexcept override {
    if (exiting) return;
    auto mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    cuda_.cuThreadExchangeStreamCaptureMode(&mode);
  }

  void context_seen(DeviceId device, ContextId context) noexcept {
    contexts_.seen(context);
    const std::lock_guard lock(latest_mutex_);
    try {
      latest_[device.ordinal] = context;
    } catch (const std::bad_alloc&) {  // seen at the next allocation
    }
  }

  void context_closing(ContextId context) noexcept { contexts_.closing(context); }

  void context_closed(ContextId context, bool gone) noexcept {
    contexts_.closed(context, gone);
    if (!gone) return;
    {
      const std::lock_guard lock(latest_mutex_);
      std::erase_if(latest_, [&](const auto& entry) { return entry.second == context; });
    }
    const std::lock_guard lock(undropped_mutex_);
    std::erase_if(undropped_, [&](const Open& open) { return open.context == context; });
  }

  void set_peer(DeviceId owner, DeviceId peer, bool enabled) noexcept {
    const std::lock_guard lock(peers_mutex_);
    const bool changed = enabled ? peers_.enable(owner, peer) : peers_.disable(owner, peer);
    if (!changed || exiting) {
      return;
    }
    CUmemAccessDesc access{};
    access.location = on(peer);
    access.flags = enabled ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    for (const auto& [at, mapping] : peers_.mappings()) {
      if (mapping.device == owner && mapping.size) {
        status_of(cuda_.cuMemSetAccess(at, mapping.size.value, &access, 1), "cuMemSetAccess");
      }
    }
  }

 private:
  struct Range {
    Address at;
    Bytes size;
  };

  Status map_with_access(Address at, Bytes size, Handle handle, DeviceId device) noexcept {
    const auto result = cuda_.cuMemMap(at, size.value, 0, handle.value, 0);
    if (result != CUDA_SUCCESS) {
      return status_of(result, "cuMemMap");
    }
    const auto access = allow(at, size, device);
    if (access != CUDA_SUCCESS) {
      if (cuda_.cuMemUnmap(at, size.value) != CUDA_SUCCESS) refused_to_unmap(at, size);
      return status_of(access, "cuMemSetAccess");
    }
    return Status::ok;
  }

  // A mapping without access that would not go: to our callers nothing is mapped there.
  void refused_to_unmap(Address at, Bytes size) noexcept {
    const std::lock_guard lock(refused_mutex_);
    try {
      refused_.push_back({at, size});
    } catch (...) {
      warn("no memory to remember a mapping of ours: its addresses stay taken");
    }
  }

  // Before a range is mapped or freed. False: something is mapped in it still.
  bool undo_refused(Address base, Bytes size) noexcept {
    const std::lock_guard lock(refused_mutex_);
    const auto inside = [=](const Range& range) {
      return range.at < base + size.value && base < range.at + range.size.value;
    };
    std::erase_if(refused_, [&](const Range& range) {
      return inside(range) && cuda_.cuMemUnmap(range.at, range.size.value) == CUDA_SUCCESS;
    });
    return std::none_of(refused_.begin(), refused_.end(), inside);
  }

  // True also before cuInit, when nobody knows.
  bool several_devices() const noexcept { return device_count(cuda_) != 1; }

  // Mappings are listed for peers to come; with one device there are none, and nothing to lock.
  std::unique_lock<std::mutex> lock_peers() noexcept {
    return several_devices() ? std::unique_lock(peers_mutex_) : std::unique_lock<std::mutex>();
  }

  template <class F>
  Status in_context(ContextId context, const char* call, F work) noexcept {
    const Contexts::Use use(contexts_, context);
    if (use.status() != Status::ok) return use.status();
    const Within within(cuda_, context);
    if (within.result() != CUDA_SUCCESS) return status_of(within.result(), "cuCtxPushCurrent");
    return status_of(work(), call);
  }

  // True also where a lost context has taken the event along.
  bool dropped(ContextId context, Fence fence) noexcept {
    const Relaxed relaxed(cuda_);
    if (!relaxed) return false;
    const Status status = in_context(context, "cuEventDestroy", [&] {
      return cuda_.cuEventDestroy_v2(static_cast<CUevent>(fence.event));
    });
    return status == Status::ok || status == Status::lost;
  }

  CUresult allow(Address at, Bytes size, DeviceId device) noexcept {
    constexpr std::size_t kMost = 16;
    CUmemAccessDesc access[kMost] = {};
    std::size_t count = 0;
    const auto add = [&](DeviceId who) {
      access[count].location = on(who);
      access[count].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
      ++count;
    };
    add(device);
    if (several_devices()) {
      peers_.for_each_of(device, [&](DeviceId peer) {
        if (count < kMost) add(peer);
      });
    }
    return cuda_.cuMemSetAccess(at, size.value, access, count);
  }

  Status wait_for_all(ContextId context) noexcept {
    const auto gate = capture_gate().hold();
    if (capture_gate().open(gate)) {
      return Status::not_now;
    }
    return in_context(context, "cuCtxSynchronize", [this] { return cuda_.cuCtxSynchronize(); });
  }

  Status ask_memory(MemoryInfo& out) noexcept {
    std::size_t free = 0;
    std::size_t total = 0;
    const auto result = cuda_.cuMemGetInfo_v2(&free, &total);
    out = {Bytes(free), Bytes(total)};
    return status_of(result, "cuMemGetInfo");
  }

  struct Open {
    ContextId context;
    Fence fence;
  };

  const Symbols& cuda_;
  std::mutex peers_mutex_;
  Peers peers_;
  Contexts contexts_;
  std::mutex latest_mutex_;
  std::map<int, ContextId> latest_;  // the last that was seen, by ordinal
  std::mutex undropped_mutex_;
  std::vector<Open> undropped_;  // fences that the driver would not let go
  std::mutex refused_mutex_;
  std::vector<Range> refused_;
};

CudaDriver* instance() noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr) {
    return nullptr;
  }
  static Immortal<CudaDriver> driver(*cuda);
  return &driver.object;
}

}  // namespace

Driver* cuda_driver() noexcept { return instance(); }

void exit_began() noexcept { exiting = true; }

Status device_uuid(DeviceId device, std::array<std::uint8_t, 16>& out) noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr || exiting) return Status::lost;
  auto* const ask =
      cuda->cuDeviceGetUuid_v2 != nullptr ? cuda->cuDeviceGetUuid_v2 : cuda->cuDeviceGetUuid;
  if (ask == nullptr) return Status::unsupported;
  const int count = device_count(*cuda);
  if (count != 0 && device.ordinal >= count) return Status::unsupported;  // asked to find the end
  CUuuid uuid{};
  const auto result = ask(&uuid, device.ordinal);
  static_assert(sizeof uuid.bytes == 16);
  std::memcpy(out.data(), uuid.bytes, out.size());
  return status_of(result, "cuDeviceGetUuid");
}

Status device_memory(DeviceId device, Bytes& out) noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr || exiting) return Status::lost;
  std::size_t total = 0;
  const auto result = cuda->cuDeviceTotalMem_v2(&total, device.ordinal);
  out = Bytes(total);
  return status_of(result, "cuDeviceTotalMem");
}

bool decompresses(DeviceId device) noexcept {
  const Symbols* cuda = symbols();
  int algorithms = 0;
  return cuda != nullptr && !exiting &&
         cuda->cuDeviceGetAttribute(&algorithms, CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK,
                                    device.ordinal) == CUDA_SUCCESS &&
         algorithms != 0;
}

int context_fault() noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr || exiting) return 0;
  std::size_t free = 0;
  std::size_t total = 0;
  const CUresult result = cuda->cuMemGetInfo_v2(&free, &total);
  return is_fault(result) ? result : 0;
}

Status current_context(ContextId& context, DeviceId& device) noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr || exiting) return Status::lost;
  CUcontext now = nullptr;
  CUdevice ordinal = -1;
  if (cuda->cuCtxGetCurrent(&now) != CUDA_SUCCESS || now == nullptr ||
      !current_device(*cuda, ordinal)) {
    return Status::lost;
  }
  context = ContextId{now};
  device = DeviceId{ordinal};
  return Status::ok;
}

void context_seen(DeviceId device, ContextId context) noexcept {
  if (auto* driver = instance()) driver->context_seen(device, context);
}

void context_closing(ContextId context) noexcept {
  if (auto* driver = instance()) driver->context_closing(context);
}

void context_closed(ContextId context, bool gone) noexcept {
  if (auto* driver = instance()) driver->context_closed(context, gone);
}

void peer_enabled(DeviceId owner, DeviceId peer) noexcept {
  if (auto* driver = instance()) driver->set_peer(owner, peer, true);
}

void peer_disabled(DeviceId owner, DeviceId peer) noexcept {
  if (auto* driver = instance()) driver->set_peer(owner, peer, false);
}

}  // namespace kvcached::driver
