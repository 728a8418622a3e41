#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/demo/replay.hpp"

namespace kvcached::demo {

/// The figures of one run, over all engines and steps.
struct Summary {
  std::uint64_t requests = 0;
  std::uint64_t finished = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t tokens_verified = 0;
  std::uint64_t rows_wrong = 0;
  double mean_bytes = 0;  // of GPU memory
  std::uint64_t peak_bytes = 0;
  std::uint64_t wait_p50 = 0;  // engine steps
  std::uint64_t wait_p99 = 0;
  std::size_t steps = 0;
  double seconds = 0;
};

Summary summarise(const ReplayResult& result);

/// The share of memory that `elastic` holds less than `fixed`, on average.
double saved_share(const Summary& fixed, const Summary& elastic);

/// The table that the demo ends with.
std::string table(const ReplayResult& fixed, const ReplayResult& elastic,
                  const std::vector<Tenant>& tenants);

/// What does not hold of what the demo shows; empty when all does.
std::vector<std::string> failures(const Summary& fixed, const Summary& elastic);

}  // namespace kvcached::demo
