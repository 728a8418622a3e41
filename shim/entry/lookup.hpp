// How programs find functions of the driver by name: dlsym and cuGetProcAddress. The driver's real
// answer comes first; ours only in the place of a success.
#pragma once

#include "shim/driver/cuda_abi.hpp"
#include "shim/entry/doors.hpp"

namespace kvcached::entry {

// The meanings of the two generations of cuGetProcAddress (see hooks.hpp for `next`).
CUresult get_proc_address(CUresult (*next)(const char*, void**, int, cuuint64_t), const char* name,
                          void** out, int version, cuuint64_t flags) noexcept;
CUresult get_proc_address_v2(CUresult (*next)(const char*, void**, int, cuuint64_t,
                                              CUdriverProcAddressQueryResult*),
                             const char* name, void** out, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) noexcept;

// Tells the driver floor which driver the program uses, if `function` belongs to one.
void note_if_driver(const Door& door, const void* function) noexcept;

}  // namespace kvcached::entry
