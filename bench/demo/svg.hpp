#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/demo/replay.hpp"

namespace kvcached::demo {

struct Chart {
  std::string title;
  const ReplayResult* result;
};

/// Memory over time: for each chart the engines' resident memory, stacked, and the GPU's as the
/// driver reports it, as a line. All charts share their scales.
std::string memory_svg(const std::vector<Chart>& charts, const std::vector<Tenant>& tenants,
                       std::uint64_t pool_bytes, const std::string& device);

}  // namespace kvcached::demo
