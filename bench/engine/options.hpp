#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bench/engine/gpu.hpp"
#include "bench/engine/scheduler.hpp"
#include "bench/engine/trace.hpp"

namespace kvcached::engine {

struct Options {
  std::string name = "engine";
  int device = 0;
  ModelShape shape{2, 8, 64, 16};
  std::uint64_t kv_bytes = 256ULL << 20U;  // of a static cache
  std::uint64_t elastic_bytes = 0;         // address space of an elastic one; 0: never elastic
  std::string trace;
  TraceSettings trace_settings{0.25, 8192};
  SchedulerSettings scheduler{16, 256, 16384, 16, 1};
  std::uint64_t steps = 0;         // at most; 0: until all requests are done
  std::uint32_t step_ms = 0;       // no step starts sooner after the one before
  std::uint64_t report_every = 1;  // steps between two lines
  bool lockstep = false;
};

/// Empty after --help or an error, which it has printed; then `exit_code` is set.
std::optional<Options> parse_options(int argc, char** argv, int& exit_code);

}  // namespace kvcached::engine
