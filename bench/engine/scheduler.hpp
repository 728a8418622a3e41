#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "bench/engine/blocks.hpp"
#include "bench/engine/kernel_args.h"
#include "bench/engine/trace.hpp"

namespace kvcached::engine {

struct SchedulerSettings {
  std::uint32_t block_tokens;
  std::uint32_t max_batch;    // requests that run at once
  std::uint32_t step_tokens;  // prompt tokens written in one step; a longer prompt goes alone
  std::uint32_t check_share;  // each step checks one n-th of every context; 0: none
  std::uint64_t seed;
};

/// What the GPU does in one step: all writes, then all checks.
struct Plan {
  std::vector<Span> writes;
  std::vector<Span> checks;
  std::vector<BlockNumber> tables;
};

struct SchedulerStats {
  std::uint64_t finished = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t rejected = 0;        // cannot fit even alone
  std::uint64_t tokens = 0;          // written, by prefill and decode
  std::vector<std::uint64_t> waits;  // per first token: steps since the request's arrival
};

/// Continuous batching over paged blocks. Requests are admitted in order of arrival, when the
/// blocks of the whole prompt are there; one that runs takes a block whenever its last one is full.
/// When there is none, the youngest loses its blocks, goes back to the head of the queue, and is
/// computed again. One thread.
class Scheduler {
 public:
  Scheduler(const SchedulerSettings& settings, Blocks& blocks, std::uint64_t max_request_blocks);

  void arrive(const Request& request);

  /// Decides one step. Every running request gets exactly one more token, unless it is preempted.
  Plan plan(std::uint64_t step);
  /// Drops what waits and checks all that runs, before it is dropped, too: for an early stop.
  Plan abandon();
  /// The work of the last plan was launched: blocks of what ended go back.
  void launched();

  [[nodiscard]] std::size_t running() const { return running_.size(); }
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] std::uint64_t live_blocks() const { return live_blocks_; }
  [[nodiscard]] const SchedulerStats& stats() const { return stats_; }

 private:
  struct Sequence {
    Request request;
    std::uint32_t attempt = 0;
    std::uint32_t produced = 0;  // tokens generated, over all attempts
    std::uint32_t written = 0;   // tokens whose K and V lie in the blocks
    std::uint32_t cursor = 0;    // next position of the moving check
    bool started = false;
    bool asked = false;  // has tried to begin
    std::vector<BlockNumber> blocks;
  };

  [[nodiscard]] std::uint64_t blocks_for(std::uint64_t tokens) const;
  [[nodiscard]] std::uint64_t growth() const;
  void grow();
  void preempt_youngest();
  bool take_for(Sequence& head, std::uint64_t need);
  void admit();
  void expect();
  void release(Sequence& sequence);
  [[nodiscard]] Span span(const Sequence& sequence, std::uint32_t table) const;
  void add(std::vector<Span>& spans, Span whole, std::uint32_t first, std::uint32_t last) const;
  void advance(Sequence& sequence, std::uint64_t step, Plan& plan);

  SchedulerSettings settings_;
  Blocks& blocks_;
  std::uint64_t max_request_blocks_;
  std::deque<Sequence> waiting_;  // oldest first
  std::vector<Sequence> running_;
  std::vector<Sequence> finished_;
  std::uint64_t live_blocks_ = 0;
  SchedulerStats stats_;
};

}  // namespace kvcached::engine
