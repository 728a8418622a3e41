#pragma once

#include "tests/sim/cuda_api.hpp"

namespace sim {

/// The error that the control file wants this call to give, CUDA_SUCCESS for none. Counts the call.
CUresult injected_fault(const char* name);

}  // namespace sim
