// Two tenants that always want more against one that asks now and then and has a guarantee.
#pragma once

#include <cstdint>

#include "bench/replay/sharing.hpp"

namespace kvcached::replay {

struct GreedyResult {
  std::uint64_t longest_wait = 0;  // of the modest one, in steps, the last unfinished one included
  std::uint64_t greedy_wait = 0;   // of the others
  std::uint64_t met = 0;           // wishes of the modest one
  std::uint64_t greedy_met = 0;
  std::uint64_t below_minimum = 0;  // steps in which it waited and had less than its minimum
  double pages = 0;                 // in use, mean
};

// One run of `steps`, of a millisecond each. Everything follows from the seed.
GreedyResult run_greedy(Way way, const balance::Rules& rules, bool gate, Pages minimum,
                        std::uint64_t steps, unsigned seed);

}  // namespace kvcached::replay
