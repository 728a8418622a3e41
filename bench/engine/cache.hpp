#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/engine/blocks.hpp"
#include "bench/engine/gpu.hpp"
#include "bench/engine/options.hpp"

namespace kvcached::engine {

/// The buffers of K and V, and who hands out their blocks.
struct KvCache {
  std::vector<DeviceBuffer> buffers;  // K, V, K, V, … in the order of layers
  std::unique_ptr<Blocks> blocks;     // after the buffers: it goes first
  std::uint64_t block_count = 0;
  bool elastic = false;
  std::string reason;  // why it is not elastic
};

/// An elastic cache where options and library allow it, else a static one. Throws GpuError.
KvCache make_cache(const Options& options);

}  // namespace kvcached::engine
