// Hundreds of engines on one GPU, each with its part of a production trace.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/replay/engine.hpp"

namespace kvcached::replay {

struct Load {
  std::uint64_t token_bytes = 0;
  bool guaranteed = false;
  std::vector<engine::Request> requests;
};

struct Sample {
  Pages guaranteed;  // charged to tenants with a minimum
  Pages others;
  Pages used;
};

struct Group {
  std::vector<std::uint64_t> waits;
  std::uint64_t below_minimum = 0;  // steps of tenants
};

struct WorldResult {
  std::vector<Sample> samples;  // one a second
  Pages peak;
  double mean = 0;  // pages charged
  double used = 0;  // pages in use
  std::uint64_t arrived = 0, done = 0, tokens = 0, rejected = 0, preemptions = 0;
  Group guaranteed, others;
  // Of the requests of the tenant that is served worst, and of one in ten: the share that is done.
  double worst = 1, tenth = 1;
  WarmScore warm;
  std::uint64_t plans = 0;
  double seconds = 0;  // of this machine
};

struct WorldSettings {
  std::string traces;  // folder
  std::size_t tenants = 240;
  std::uint64_t minutes = 5;
  Pages minimum{64};  // of every eighth tenant
  Foresight foresight = Foresight::queue;
};

// The same for every way: the tenants' traces, begun at different places and thinned by different
// factors, over and over. Throws std::runtime_error when a trace cannot be read.
std::vector<Load> make_loads(const WorldSettings& settings);

WorldResult run_world(Way way, Pages pool, const WorldSettings& settings,
                      const std::vector<Load>& loads, const balance::Rules& rules);

}  // namespace kvcached::replay
