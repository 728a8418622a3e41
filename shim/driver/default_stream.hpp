// The streams that work goes to where its caller names none.
#pragma once

#include <cstdint>

#include "shim/driver/cuda_abi.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::driver {

enum class DefaultStream : std::uint8_t { legacy, per_thread };

// Waits for all work of that stream of the calling thread's current context. Leaves captures alone:
// where one forbids the wait, the answer is success and nothing was waited for.
CUresult wait_for(DefaultStream stream) noexcept;
// The same of another context.
CUresult wait_for(DefaultStream stream, ContextId context) noexcept;

}  // namespace kvcached::driver
