#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace sim {

/// The simulator's environment, read once, at cuInit.
struct Settings {
  int devices;                 // SIM_GPU_COUNT
  std::size_t memory;          // SIM_GPU_MEMORY, bytes of each GPU
  std::size_t context_memory;  // SIM_GPU_CONTEXT_MEMORY, bytes that each context takes
  std::int64_t reap_ns;        // SIM_GPU_REAP_MS, from a holder's death to its memory's return
  std::string directory;       // SIM_GPU_DIR, where the memory lies
  std::string kernels;         // SIM_GPU_KERNELS, libraries, separated by colons
  std::string faults;          // SIM_GPU_FAULTS, the control file
  bool latency;                // SIM_GPU_LATENCY
};

const Settings& settings();

}  // namespace sim
