#include "bench/replay/world.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <random>

namespace kvcached::replay {
namespace {

constexpr std::uint64_t kStepsInSecond = std::chrono::seconds(1) / kStep;
constexpr std::uint64_t kTraceSteps = 5 * 60 * kStepsInSecond;
constexpr std::uint32_t kMostTokens = 2048;

// K and V of a token in 16 bits: models of 1.5, 8 and 14 thousand million parameters or so.
constexpr std::array<std::uint64_t, 3> kTokenBytes{28 << 10, 128 << 10, 192 << 10};
constexpr std::array<std::uint64_t, 4> kThinned{1, 2, 4, 8};

void append(Group& group, const EngineStats& stats) {
  group.waits.insert(group.waits.end(), stats.waits.begin(), stats.waits.end());
  group.below_minimum += stats.below_minimum;
}

}  // namespace

std::vector<Load> make_loads(const WorldSettings& settings) {
  std::array<std::vector<engine::Request>, 3> traces;
  std::size_t place = 0;
  for (const char* name : {"code-a.csv", "code-b.csv", "conversation.csv"}) {
    traces[place++] = engine::read_trace(settings.traces + "/" + name, {0.02, kMostTokens});
  }
  std::mt19937 random(1);
  std::vector<Load> loads(settings.tenants);
  const std::uint64_t end = settings.minutes * 60 * kStepsInSecond;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    Load& load = loads[i];
    load.guaranteed = i % 8 == 0;
    load.token_bytes = kTokenBytes[random() % kTokenBytes.size()];
    const auto& trace = traces[i % traces.size()];
    const std::uint64_t thinned = kThinned[random() % kThinned.size()];
    const std::uint64_t offset = random() % kTraceSteps;
    for (std::uint64_t round = 0; round * kTraceSteps < end + offset; ++round) {
      for (const engine::Request& request : trace) {
        engine::Request moved = request;
        moved.arrival += round * kTraceSteps;
        if (request.number % thinned != 0 || moved.arrival < offset) continue;
        moved.arrival -= offset;
        if (moved.arrival < end) load.requests.push_back(moved);
      }
    }
  }
  return loads;
}

WorldResult run_world(Way way, Pages pool, const WorldSettings& settings,
                      const std::vector<Load>& loads, const balance::Rules& rules) {
  std::vector<balance::Tenant> tenants(loads.size());
  for (std::size_t i = 0; i < loads.size(); ++i) {
    if (loads[i].guaranteed) tenants[i].min = settings.minimum;
    // Stripes of 1 to 8 pages, as layers and models have them.
    tenants[i].stripe = Pages(1ULL << (i % 4));
  }
  Shared shared(way, pool, std::move(tenants), rules);
  std::vector<std::unique_ptr<Engine>> engines;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    engines.push_back(std::make_unique<Engine>(shared, i, loads[i].token_bytes, loads[i].requests,
                                               settings.foresight));
  }

  WorldResult result;
  const auto begin = std::chrono::steady_clock::now();
  const std::uint64_t steps = settings.minutes * 60 * kStepsInSecond;
  for (std::uint64_t step = 0; step < steps; ++step) {
    // Nobody is always first.
    for (std::size_t k = 0; k < engines.size(); ++k) {
      engines[(k + step * 7) % engines.size()]->step(step);
    }
    const Pages charged = shared.charged();
    result.peak = std::max(result.peak, charged);
    result.mean += static_cast<double>(charged.value) / static_cast<double>(steps);
    for (const balance::Tenant& t : shared.tenants()) {
      result.used += static_cast<double>(t.used.value) / static_cast<double>(steps);
    }
    if (step % kStepsInSecond != 0) continue;
    Sample sample;
    for (const balance::Tenant& t : shared.tenants()) {
      (t.min ? sample.guaranteed : sample.others) += t.charged;
      sample.used += t.used;
    }
    result.samples.push_back(sample);
  }
  std::vector<double> shares;
  for (std::size_t i = 0; i < engines.size(); ++i) {
    engines[i]->end(steps);
    const EngineStats& stats = engines[i]->stats();
    result.arrived += stats.arrived;
    if (stats.arrived > 0) {
      shares.push_back(static_cast<double>(stats.done) / static_cast<double>(stats.arrived));
    }
    result.done += stats.done;
    result.tokens += stats.tokens;
    result.rejected += stats.rejected;
    result.preemptions += stats.preemptions;
    append(loads[i].guaranteed ? result.guaranteed : result.others, stats);
    result.warm.hits += stats.warm.hits;
    result.warm.misses += stats.warm.misses;
    result.warm.vain += stats.warm.vain;
  }
  std::sort(shares.begin(), shares.end());
  if (!shares.empty()) {
    result.worst = shares.front();
    result.tenth = shares[shares.size() / 10];
  }
  result.plans = shared.plans();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace kvcached::replay
