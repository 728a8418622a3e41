// A paged engine of one tenant in simulated time: requests queue, prefill, generate, are preempted
// when pages lack, as the servers do that the traces come from. It knows pages, not what is in
// them.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "bench/engine/trace.hpp"
#include "bench/replay/sharing.hpp"
#include "policy/warm.hpp"

namespace kvcached::replay {

// Of simulated time: about what a decode step of a small model takes.
inline constexpr Duration kStep = std::chrono::milliseconds(20);

// Pages that were ready without a block.
struct WarmScore {
  std::uint64_t hits = 0;    // taken when they were needed
  std::uint64_t misses = 0;  // not there then
  std::uint64_t vain = 0;    // let go
};

struct EngineStats {
  std::uint64_t arrived = 0;
  std::uint64_t done = 0;
  std::uint64_t tokens = 0;    // of requests that are done, prompt and answer
  std::uint64_t rejected = 0;  // cannot fit even alone
  std::uint64_t preemptions = 0;
  std::uint64_t below_minimum = 0;   // steps in which something waited below the minimum
  std::vector<std::uint64_t> waits;  // steps until a request begins; of those that wait still, too
  WarmScore warm;
};

class Engine {
 public:
  // `requests` by arrival, in steps. Plays in `shared` the tenant `place`.
  Engine(Shared& shared, std::size_t place, std::uint64_t token_bytes,
         std::vector<engine::Request> requests, Foresight foresight);

  void step(std::uint64_t step);
  // Counts what still waits.
  void end(std::uint64_t step);

  const EngineStats& stats() const { return stats_; }

 private:
  struct Sequence {
    engine::Request request;
    std::uint64_t prefilled = 0;  // steps left until the first token
    std::uint32_t tokens = 0;
    std::uint32_t produced = 0;
    bool begun = false;  // before it was preempted

    // What it had, to be computed again, and the first one more.
    std::uint32_t tokens_to_begin() const { return request.prompt + produced + 1; }
  };

  Instant now() const { return Instant(kStep * static_cast<std::int64_t>(step_)); }
  balance::Tenant& own() { return shared_.tenant(place_); }
  Pages pages_for(std::uint64_t tokens) const;
  Pages queued() const;
  Pages next() const;
  bool take(Pages pages, bool begins);
  void arrive();
  void generate();
  void admit();
  void resize();
  void preempt_youngest();
  void keep_house();

  Shared& shared_;
  std::size_t place_;
  std::uint64_t token_bytes_;
  std::vector<engine::Request> requests_;
  Foresight foresight_;
  std::size_t next_ = 0;
  std::deque<Sequence> waiting_;
  std::vector<Sequence> running_;
  std::uint64_t live_tokens_ = 0;
  std::uint64_t step_ = 0;
  WarmPolicy warm_{Blocks::max()};  // of pages: blocks of that size
  EngineStats stats_;
};

}  // namespace kvcached::replay
