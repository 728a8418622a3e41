#pragma once

#include <functional>

#include "tests/sim/cuda_api.hpp"

namespace sim {

/// Takes over SIGSEGV and SIGBUS, handing on what did not happen inside run_trapped.
void install_trap();

/// Runs `body`; a touch of an inaccessible address inside it ends it, without unwinding, and gives
/// ILLEGAL_ADDRESS.
CUresult run_trapped(const std::function<void()>& body);

}  // namespace sim
