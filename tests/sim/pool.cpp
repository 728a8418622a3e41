// Stream-ordered memory. The pools keep nothing back: what is freed returns at once.
#include <mutex>
#include <set>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

struct Pools {
  std::mutex mutex;
  std::set<CUmemoryPool> made;
  std::uintptr_t last = 0x1000;
};

Pools& pools() {
  static Pools& all = *new Pools;
  return all;
}

/// A handle that differs from what cuMemPoolCreate makes.
CUmemoryPool default_pool(int ordinal) {
  return reinterpret_cast<CUmemoryPool>(std::uintptr_t{16} * (static_cast<unsigned>(ordinal) + 1));
}

bool is_pool(CUmemoryPool pool) {
  for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
    if (default_pool(ordinal) == pool) return true;
  }
  const std::lock_guard lock(pools().mutex);
  return pools().made.count(pool) == 1;
}

CUresult allocate(Context& context, CUdeviceptr* address, std::size_t bytes, CUmemoryPool pool,
                  CUstream handle) {
  std::shared_ptr<Stream> stream;
  if (const CUresult refused = resolve_stream(handle, context, stream)) return refused;
  if (address == nullptr || bytes == 0 || !is_pool(pool)) return CUDA_ERROR_INVALID_VALUE;
  if (is_capturing(*stream)) return CUDA_ERROR_NOT_SUPPORTED;
  return Space::get().allocate(*address, bytes, context, Origin::kAsync, pool);
}

CUresult ask_pool(const char* name, CUdevice ordinal, CUmemoryPool* pool) {
  return enter(name, [&]() -> CUresult {
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (find_device(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *pool = default_pool(ordinal);
    return CUDA_SUCCESS;
  });
}

/// The body of a call that a pool accepts without effect.
CUresult accept(const char* name, CUmemoryPool pool) {
  return enter(name, [&] { return is_pool(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  return enter_context(__func__, [&](Context& context) {
    return allocate(context, address, bytes, default_pool(context.device().ordinal), stream);
  });
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool pool,
                                 CUstream stream) {
  return enter_context(
      __func__, [&](Context& context) { return allocate(context, address, bytes, pool, stream); });
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  return enter_context(__func__, [&](Context& context) -> CUresult {
    std::shared_ptr<Stream> stream;
    if (const CUresult refused = resolve_stream(handle, context, stream)) return refused;
    const Place place = Space::get().find(address);
    if (place.kind != Place::Kind::kAllocated || place.base != address) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (is_capturing(*stream)) return CUDA_ERROR_NOT_SUPPORTED;
    return enqueue(*stream, CU_GRAPH_NODE_TYPE_MEM_FREE,
                   {Work::Kind::kAlways, [address] { Space::get().free(address, false); }});
  });
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return ask_pool(__func__, device, pool);
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  return ask_pool(__func__, device, pool);
}

CUresult cuDeviceSetMemPool(CUdevice /*device*/, CUmemoryPool pool) {
  return accept(__func__, pool);
}

CUresult cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps* properties) {
  return enter(__func__, [&]() -> CUresult {
    if (pool == nullptr || properties == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(pools().mutex);
    *pool = reinterpret_cast<CUmemoryPool>(pools().last += 16);
    pools().made.insert(*pool);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemPoolDestroy(CUmemoryPool pool) {
  return enter(__func__, [&]() -> CUresult {
    const std::lock_guard lock(pools().mutex);
    return pools().made.erase(pool) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t /*bytes*/) { return accept(__func__, pool); }

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute /*which*/, void* /*value*/) {
  return accept(__func__, pool);
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc* /*access*/,
                            size_t /*count*/) {
  return accept(__func__, pool);
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute which, void* value) {
  return enter(__func__, [&]() -> CUresult {
    if (!is_pool(pool) || value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (which <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES) {
      *static_cast<int*>(value) = 1;
    } else {
      *static_cast<cuuint64_t*>(value) = 0;
    }
    return CUDA_SUCCESS;
  });
}
