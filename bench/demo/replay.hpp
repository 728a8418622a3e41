#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/demo/child.hpp"
#include "bench/demo/gpu.hpp"

namespace kvcached::demo {

struct Tenant {
  std::string name;
  std::string trace;  // file
};

struct ReplaySettings {
  std::string mode;                  // "static" or "elastic", which every engine must report
  std::vector<std::string> command;  // of an engine; --name and --trace are added
  Environment environment;           // KVCACHED_NAME is added
  std::vector<Tenant> tenants;
  std::uint32_t step_ms;  // no step starts sooner after the one before
  std::string logs;       // folder
};

/// At the end of one step.
struct Sample {
  std::vector<std::uint64_t> resident;  // bytes, as each engine knows them
  std::uint64_t gpu;                    // bytes, as the driver reports them
};

struct TenantResult {
  std::uint64_t requests = 0;
  std::uint64_t finished = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t tokens_verified = 0;
  std::uint64_t rows_wrong = 0;
  std::vector<std::uint64_t> waits;
};

struct ReplayResult {
  std::vector<Sample> samples;  // one a step
  std::vector<TenantResult> tenants;
  double seconds = 0;
};

/// Starts the engines, leads them step by step until all requests are done, and prints a line every
/// second. All make each step together, so a slow machine makes it longer, not different. GPU
/// memory counts from when all have their contexts and none its K and V. Throws std::runtime_error
/// when an engine fails or is in another mode.
ReplayResult replay(const ReplaySettings& settings, const Gpu& gpu);

}  // namespace kvcached::demo
