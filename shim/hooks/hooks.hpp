// What each intercepted call means. The first argument is the function that the program would have
// reached without us; what we do not know goes there unchanged. Arguments and results are the
// driver's: see its manual for them, here is only what differs.
//
// None of these throws, exits, or changes the current context.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shim/driver/cuda_abi.hpp"
#include "shim/driver/default_stream.hpp"
#include "shim/hooks/touches.hpp"

namespace kvcached::hooks {

template <class... A>
using Next = CUresult (*)(A...);

// ---- memory.cpp: allocations become elastic, plain ones are counted --------------------------

CUresult mem_alloc(Next<CUdeviceptr*, std::size_t> next, CUdeviceptr* out,
                   std::size_t size) noexcept;
CUresult mem_alloc_pitch(Next<CUdeviceptr*, std::size_t*, std::size_t, std::size_t, unsigned> next,
                         CUdeviceptr* out, std::size_t* pitch, std::size_t width,
                         std::size_t height, unsigned element) noexcept;
CUresult mem_alloc_async(Next<CUdeviceptr*, std::size_t, CUstream> next, CUdeviceptr* out,
                         std::size_t size, CUstream stream) noexcept;
CUresult mem_alloc_from_pool(Next<CUdeviceptr*, std::size_t, CUmemoryPool, CUstream> next,
                             CUdeviceptr* out, std::size_t size, CUmemoryPool pool,
                             CUstream stream) noexcept;
CUresult mem_free(Next<CUdeviceptr> next, CUdeviceptr address) noexcept;
CUresult mem_free_async(Next<CUdeviceptr, CUstream> next, CUdeviceptr address,
                        CUstream stream) noexcept;

// ---- physical.cpp: memory that the program creates and maps itself is counted ----------------

CUresult mem_create(
    Next<CUmemGenericAllocationHandle*, std::size_t, const CUmemAllocationProp*, unsigned long long>
        next,
    CUmemGenericAllocationHandle* out, std::size_t size, const CUmemAllocationProp* properties,
    unsigned long long flags) noexcept;
CUresult mem_release(Next<CUmemGenericAllocationHandle> next,
                     CUmemGenericAllocationHandle handle) noexcept;
CUresult mem_map(
    Next<CUdeviceptr, std::size_t, std::size_t, CUmemGenericAllocationHandle, unsigned long long>
        next,
    CUdeviceptr at, std::size_t size, std::size_t offset, CUmemGenericAllocationHandle handle,
    unsigned long long flags) noexcept;
CUresult mem_unmap(Next<CUdeviceptr, std::size_t> next, CUdeviceptr at, std::size_t size) noexcept;

// Memory from cuMemAlloc is no mapping to undo, no reservation to give back.
CUresult mem_address_free(Next<CUdeviceptr, std::size_t> next, CUdeviceptr at,
                          std::size_t size) noexcept;
CUresult mem_set_access(Next<CUdeviceptr, std::size_t, const CUmemAccessDesc*, std::size_t> next,
                        CUdeviceptr at, std::size_t size, const CUmemAccessDesc* access,
                        std::size_t count) noexcept;

// ---- info.cpp: an engine is shown its own GPU -------------------------------------------------

CUresult mem_get_info(Next<std::size_t*, std::size_t*> next, std::size_t* free,
                      std::size_t* total) noexcept;

// NVML's results and structures, as its manual fixes them.
enum class NvmlResult : int { success = 0, library_not_found = 12 };
struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlMemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
NvmlResult nvml_memory_info(NvmlResult (*next)(void*, NvmlMemory*), void* device,
                            NvmlMemory* out) noexcept;
NvmlResult nvml_memory_info_v2(NvmlResult (*next)(void*, NvmlMemoryV2*), void* device,
                               NvmlMemoryV2* out) noexcept;

// ---- identity.cpp: an elastic address answers as cudaMalloc's would ----------------------------

CUresult mem_get_address_range(Next<CUdeviceptr*, std::size_t*, CUdeviceptr> next,
                               CUdeviceptr* base, std::size_t* size, CUdeviceptr address) noexcept;
CUresult pointer_get_attribute(Next<void*, CUpointer_attribute, CUdeviceptr> next, void* data,
                               CUpointer_attribute attribute, CUdeviceptr address) noexcept;
CUresult mem_host_get_device_pointer(Next<CUdeviceptr*, void*, unsigned> next, CUdeviceptr* out,
                                     void* host, unsigned flags) noexcept;
// Where a program pins memory for other devices, its pages must be the final ones: refused for
// memory that somebody backs piece by piece. For the rest the driver refuses sync-memops, as for
// all mapped memory: here it is set, and seen to by sync_memops.cpp.
CUresult pointer_set_attribute(Next<const void*, CUpointer_attribute, CUdeviceptr> next,
                               const void* value, CUpointer_attribute attribute,
                               CUdeviceptr address) noexcept;
CUresult pointer_get_attributes(Next<unsigned, CUpointer_attribute*, void**, CUdeviceptr> next,
                                unsigned count, CUpointer_attribute* attributes, void** data,
                                CUdeviceptr address) noexcept;
// Elastic memory cannot be shared with another process: NOT_SUPPORTED, and one line in the log.
CUresult ipc_get_mem_handle(Next<CUipcMemHandle*, CUdeviceptr> next, CUipcMemHandle* out,
                            CUdeviceptr address) noexcept;
// Plain memory has no such handle: INVALID_VALUE, as for cudaMalloc's.
CUresult mem_retain_handle(Next<CUmemGenericAllocationHandle*, void*> next,
                           CUmemGenericAllocationHandle* out, void* address) noexcept;
// Pins, as pointer_set_attribute does; the driver has the last word.
CUresult mem_get_range_handle(Next<void*, CUdeviceptr, std::size_t, int, unsigned long long> next,
                              void* out, CUdeviceptr address, std::size_t size, int type,
                              unsigned long long flags) noexcept;

// ---- capture.cpp: captures and fences exclude each other --------------------------------------

// `ptsz`: a stream of 0 means the calling thread's default stream.
template <bool ptsz>
CUresult begin_capture_v1(Next<CUstream> next, CUstream stream) noexcept;
template <bool ptsz>
CUresult begin_capture(Next<CUstream, CUstreamCaptureMode> next, CUstream stream,
                       CUstreamCaptureMode mode) noexcept;
template <bool ptsz>
CUresult begin_capture_to_graph(
    Next<CUstream, CUgraph, const CUgraphNode*, const void*, std::size_t, CUstreamCaptureMode> next,
    CUstream stream, CUgraph graph, const CUgraphNode* dependencies, const void* edges,
    std::size_t count, CUstreamCaptureMode mode) noexcept;
template <bool ptsz>
CUresult end_capture(Next<CUstream, CUgraph*> next, CUstream stream, CUgraph* graph) noexcept;
CUresult stream_destroy(Next<CUstream> next, CUstream stream) noexcept;

// ---- context.cpp: a context takes its buffers with it -----------------------------------------

CUresult ctx_destroy(Next<CUcontext> next, CUcontext context) noexcept;
CUresult primary_reset(Next<CUdevice> next, CUdevice device) noexcept;
CUresult primary_release(Next<CUdevice> next, CUdevice device) noexcept;
CUresult enable_peer(Next<CUcontext, unsigned> next, CUcontext owner, unsigned flags) noexcept;
CUresult disable_peer(Next<CUcontext> next, CUcontext owner) noexcept;

// ---- evidence.cpp: work is about to be given to the GPU ----------------------------------------

// Backs what nobody has claimed, or what `touches` finds of it where the user has promised that the
// arguments tell. `now`: the call begins work, not a node of a graph that does later. Called only
// while kvcached_watched.unclaimed is not 0. False: there is no memory for it; the work must not
// begin, and the program is to hear OUT_OF_MEMORY.
bool work_begins(bool now, Touches touches, const Arguments& call) noexcept;

// ---- sync_memops.cpp: synchronous copies and fills that wait, as the program has set it ---------

// Whether a synchronous copy or fill uses memory for which that is set, or may. Called only while
// kvcached_watched.sync_memops is not 0.
bool has_to_wait(Touches touches, const Arguments& call) noexcept;
// Makes the call, and waits until it is done. pre: `function` has at most six arguments.
CUresult call_and_wait(void* function, const Arguments& call,
                       driver::DefaultStream stream) noexcept;

}  // namespace kvcached::hooks
