#pragma once

#include <memory>

#include "tests/sim/cuda_api.hpp"
#include "tests/sim/physical.hpp"

namespace sim {

class Context;

struct Device {
  int ordinal;
  std::unique_ptr<PhysicalMemory> memory;
  std::unique_ptr<Context> primary;
};

/// Creates the devices that the settings ask for; once.
CUresult open_devices();

/// nullptr for an ordinal that does not exist.
Device* find_device(int ordinal);
int device_count();

}  // namespace sim
