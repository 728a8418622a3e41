#include "bench/engine/scheduler.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvcached::engine {
namespace {

// Tokens of one thread block.
constexpr std::uint32_t kSpanTokens = 64;

std::uint64_t request_seed(std::uint64_t seed, std::uint32_t number, std::uint32_t attempt) {
  // Not the attempt's number alone: what an earlier attempt left behind must look wrong.
  std::uint64_t x = seed * 0x9E3779B97F4A7C15ULL + (std::uint64_t{number} << 20U) + attempt;
  x = (x ^ (x >> 32U)) * 0xD6E8FEB86659FD93ULL;
  return x ^ (x >> 32U);
}

}  // namespace

Scheduler::Scheduler(const SchedulerSettings& settings, Blocks& blocks,
                     std::uint64_t max_request_blocks)
    : settings_(settings), blocks_(blocks), max_request_blocks_(max_request_blocks) {}

std::uint64_t Scheduler::blocks_for(std::uint64_t tokens) const {
  return (tokens + settings_.block_tokens - 1) / settings_.block_tokens;
}

void Scheduler::arrive(const Request& request) {
  if (blocks_for(request.prompt + request.generate) > max_request_blocks_) {
    ++stats_.rejected;
    return;
  }
  Sequence sequence;
  sequence.request = request;
  waiting_.push_back(std::move(sequence));
}

/// Blocks that running requests lack for their next token.
std::uint64_t Scheduler::growth() const {
  return static_cast<std::uint64_t>(std::count_if(
      running_.begin(), running_.end(),
      [this](const Sequence& s) { return s.blocks.size() < blocks_for(s.written + 1); }));
}

void Scheduler::release(Sequence& sequence) {
  blocks_.give_back(sequence.blocks);
  live_blocks_ -= sequence.blocks.size();
  sequence.blocks.clear();
}

void Scheduler::preempt_youngest() {
  const auto youngest = std::max_element(
      running_.begin(), running_.end(),
      [](const Sequence& a, const Sequence& b) { return a.request.number < b.request.number; });
  Sequence sequence = std::move(*youngest);
  running_.erase(youngest);
  release(sequence);
  sequence.written = 0;
  ++sequence.attempt;
  ++stats_.preemptions;
  waiting_.push_front(std::move(sequence));
}

/// Gives every running request room for its next token, at the expense of the youngest.
void Scheduler::grow() {
  std::vector<BlockNumber> taken;
  std::uint64_t need = growth();
  blocks_.take(need, true, taken);
  while (taken.size() < need) {
    preempt_youngest();
    need = growth();
    if (taken.size() < need) {
      blocks_.take(need - taken.size(), false, taken);
    }
  }
  for (Sequence& s : running_) {
    if (s.blocks.size() < blocks_for(s.written + 1)) {
      s.blocks.push_back(taken.back());
      taken.pop_back();
      ++live_blocks_;
    }
  }
}

/// All blocks that `head` needs to begin, or none. The first try accepts a short wait: where memory
/// is to be had, it comes within the step. Later ones ask again, or the others would keep it.
bool Scheduler::take_for(Sequence& head, std::uint64_t need) {
  // One block for each that runs stays back, or the newcomer would soon be preempted again.
  const std::uint64_t with_reserve = need + running_.size();
  const bool first = !std::exchange(head.asked, true);
  if (!first && blocks_.available() < with_reserve) {
    blocks_.ask(with_reserve);
    return false;
  }
  std::vector<BlockNumber> taken;
  blocks_.take(with_reserve, first, taken);
  if (taken.size() == with_reserve) {
    head.blocks.assign(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(need));
    taken.erase(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(need));
    live_blocks_ += need;
  }
  blocks_.give_back(taken);
  return !head.blocks.empty();
}

void Scheduler::admit() {
  std::uint64_t tokens = 0;
  while (!waiting_.empty() && running_.size() < settings_.max_batch) {
    Sequence& head = waiting_.front();
    const std::uint64_t context = head.request.prompt + head.produced;
    if (tokens != 0 && tokens + context > settings_.step_tokens) {
      return;
    }
    if (!take_for(head, blocks_for(context))) {
      return;
    }
    tokens += context;
    running_.push_back(std::move(head));
    waiting_.pop_front();
  }
}

/// What the next step could use: the reserve of those that run, and the head of the queue.
void Scheduler::expect() {
  std::uint64_t blocks = running_.size();
  std::uint64_t tokens = 0;
  std::size_t batch = running_.size();
  for (const Sequence& s : waiting_) {
    const std::uint64_t context = s.request.prompt + s.produced;
    if (batch == settings_.max_batch || (tokens != 0 && tokens + context > settings_.step_tokens)) {
      break;
    }
    tokens += context;
    blocks += blocks_for(context) + 1;
    ++batch;
  }
  blocks_.expect(blocks);
}

Span Scheduler::span(const Sequence& sequence, std::uint32_t table) const {
  const std::uint64_t seed =
      request_seed(settings_.seed, sequence.request.number, sequence.attempt);
  return {seed, 0, sequence.written, table, 0};
}

/// Adds positions [first, last) of `whole`, cut for the thread blocks.
void Scheduler::add(std::vector<Span>& spans, Span whole, std::uint32_t first,
                    std::uint32_t last) const {
  for (std::uint32_t p = first; p < last; p += kSpanTokens) {
    whole.position = p;
    whole.count = std::min(kSpanTokens, last - p);
    spans.push_back(whole);
  }
}

/// Prefill or decode, whichever it is due: writes what is not written yet, makes one token.
void Scheduler::advance(Sequence& sequence, std::uint64_t step, Plan& plan) {
  const std::uint32_t context = sequence.request.prompt + sequence.produced;
  const auto table = static_cast<std::uint32_t>(plan.tables.size());
  plan.tables.insert(plan.tables.end(), sequence.blocks.begin(), sequence.blocks.end());
  add(plan.writes, span(sequence, table), sequence.written, context);
  stats_.tokens += context - sequence.written;
  sequence.written = context;
  ++sequence.produced;
  if (!sequence.started) {
    sequence.started = true;
    stats_.waits.push_back(step - sequence.request.arrival);
  }
  const Span whole = span(sequence, table);
  if (sequence.produced == sequence.request.generate) {
    add(plan.checks, whole, 0, context);
  } else if (settings_.check_share != 0) {
    const std::uint32_t first = sequence.cursor < context ? sequence.cursor : 0;
    const std::uint32_t last = std::min(context, first + context / settings_.check_share + 1);
    add(plan.checks, whole, first, last);
    sequence.cursor = last;
  }
}

Plan Scheduler::plan(std::uint64_t step) {
  Plan plan;
  grow();
  admit();
  for (Sequence& s : running_) {
    advance(s, step, plan);
  }
  const auto done = std::stable_partition(running_.begin(), running_.end(), [](const Sequence& s) {
    return s.produced < s.request.generate;
  });
  stats_.finished += static_cast<std::uint64_t>(running_.end() - done);
  std::move(done, running_.end(), std::back_inserter(finished_));
  running_.erase(done, running_.end());
  return plan;
}

void Scheduler::launched() {
  for (Sequence& s : finished_) {
    release(s);
  }
  finished_.clear();
  expect();
}

Plan Scheduler::abandon() {
  Plan plan;
  for (Sequence& s : running_) {
    const auto table = static_cast<std::uint32_t>(plan.tables.size());
    plan.tables.insert(plan.tables.end(), s.blocks.begin(), s.blocks.end());
    add(plan.checks, span(s, table), 0, s.written);
  }
  std::move(running_.begin(), running_.end(), std::back_inserter(finished_));
  running_.clear();
  waiting_.clear();
  return plan;
}

}  // namespace kvcached::engine
