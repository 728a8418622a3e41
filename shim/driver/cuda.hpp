// The driver floor on the real CUDA driver, and the few questions about devices that only the
// process asks. Free of CUDA's own headers.
#pragma once

#include <array>
#include <cstdint>

#include "shim/driver/driver.hpp"

namespace kvcached::driver {

// The one implementation of Driver on the CUDA driver that the program uses; lives for ever. Null
// while no usable driver is loaded. Thread-safe.
//
// Fences: a driver without cuCtxRecordEvent (before 12.5) has no event over a whole context; there
// `fence` waits for all work of the context and answers with a fence that has passed.
Driver* cuda_driver() noexcept;

// Process exit began: every later call answers `lost`.
void exit_began() noexcept;

// The device's UUID (of the MIG slice, where there is one) and all its memory. No context needed.
Status device_uuid(DeviceId device, std::array<std::uint8_t, 16>& out) noexcept;
Status device_memory(DeviceId device, Bytes& out) noexcept;

// Whether the device has an engine that decompresses memory.
bool decompresses(DeviceId device) noexcept;

// The calling thread's context and its device. `lost`: there is none.
Status current_context(ContextId& context, DeviceId& device) noexcept;

// The code (a CUresult) that a kernel which faulted left in the calling thread's context: each
// call there is answered with it. 0: none, or no context. Makes one cheap call, which captures
// allow.
int context_fault() noexcept;

// A context of the device, in which calls may be made until context_closing; that returns when none
// is under way. In between memory_info may use it on threads that have no context of their own.
void context_seen(DeviceId device, ContextId context) noexcept;
void context_closing(ContextId context) noexcept;
// `gone`: with everything that was in it. Otherwise calls may be made in it again.
void context_closed(ContextId context, bool gone) noexcept;

// `peer` may, or may no longer, access the memory of `owner`: holds for what is mapped and for
// every later map.
void peer_enabled(DeviceId owner, DeviceId peer) noexcept;
void peer_disabled(DeviceId owner, DeviceId peer) noexcept;

}  // namespace kvcached::driver
