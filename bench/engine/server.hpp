#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "bench/engine/cache.hpp"
#include "bench/engine/gpu.hpp"
#include "bench/engine/options.hpp"
#include "bench/engine/pace.hpp"
#include "bench/engine/scheduler.hpp"

namespace kvcached::engine {

/// The server loop: arrivals, steps, and a JSON line on standard output about each. Lines have an
/// "event": ready (context and kernels are there, memory is not), start, step, summary.
class Server {
 public:
  explicit Server(const Options& options);

  /// Until all requests are done, the clock ends, or SIGTERM. True when all data was right. Throws
  /// GpuError and std::runtime_error.
  bool run();

 private:
  void start();
  void step();
  bool idle() const;
  void report_step();
  void report_summary(const Counters& counters, std::uint64_t unfinished);

  Options options_;
  std::deque<Request> arrivals_;
  std::size_t requests_;
  Pace pace_;
  Device device_;
  KvCache cache_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Scheduler> scheduler_;
  std::uint64_t step_ = 0;
  double resident_sum_ = 0;
  std::uint64_t resident_peak_ = 0;
};

}  // namespace kvcached::engine
