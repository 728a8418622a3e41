#pragma once

namespace sim {

/// Takes as long as this call does on a real GPU, where SIM_GPU_LATENCY asks for that. Calls that
/// the driver serialises wait for each other, in all processes.
void delay(const char* name);

}  // namespace sim
