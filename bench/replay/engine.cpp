#include "bench/replay/engine.hpp"

#include <algorithm>
#include <utility>

namespace kvcached::replay {
namespace {

constexpr std::uint32_t kBlockTokens = 16;
constexpr std::uint32_t kPrefillTokens = 400;  // in a step
constexpr std::size_t kMostRunning = 64;

std::uint64_t in_blocks(std::uint64_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}

}  // namespace

Engine::Engine(Shared& shared, std::size_t place, std::uint64_t token_bytes,
               std::vector<engine::Request> requests, Foresight foresight)
    : shared_(shared),
      place_(place),
      token_bytes_(token_bytes),
      requests_(std::move(requests)),
      foresight_(foresight) {}

// Blocks lie in the fullest stripes, so those in use are as few as can be.
Pages Engine::pages_for(std::uint64_t tokens) const {
  return balance::whole_up(pages_up(Bytes(tokens * token_bytes_)),
                           shared_.tenants()[place_].stripe);
}

// Puts as many more pages to use, from what is at hand or granted at once; or none. New work asks
// the gate; what runs grows on, or it would be thrown away and done again.
bool Engine::take(Pages pages, bool begins) {
  balance::Tenant& t = own();
  const Pages ready = std::min(balance::at_hand(t), pages);
  if (ready < pages) {
    const Pages lacks = balance::whole_up(pages - ready, t.stripe);
    shared_.grant(place_, lacks, now(),
                  begins ? balance::Purpose::wish : balance::Purpose::running);
  }
  if (balance::at_hand(t) < pages) return false;
  if (begins && !shared_.may_reuse(place_, pages, now())) return false;
  t.used += pages;
  stats_.warm.hits += ready.value;
  stats_.warm.misses += (pages - ready).value;
  shared_.changed();
  return true;
}

void Engine::arrive() {
  for (; next_ < requests_.size() && requests_[next_].arrival <= step_; ++next_) {
    const engine::Request& request = requests_[next_];
    ++stats_.arrived;
    const Pages most = shared_.most(place_);
    if (pages_for(in_blocks(request.prompt + request.generate)) > most) {
      ++stats_.rejected;
      continue;
    }
    waiting_.push_back({request, 0, 0, 0, false});
  }
}

void Engine::preempt_youngest() {
  Sequence sequence = running_.back();
  running_.pop_back();
  live_tokens_ -= in_blocks(sequence.tokens);
  sequence.tokens = 0;
  ++stats_.preemptions;
  waiting_.push_front(sequence);
}

// What the running requests have grown to: stripes that became empty are idle, those that lack are
// taken, at the expense of the youngest where they cannot be had.
void Engine::resize() {
  balance::Tenant& t = own();
  while (pages_for(live_tokens_) > t.used && !take(pages_for(live_tokens_) - t.used, false)) {
    preempt_youngest();
  }
  const Pages needed = pages_for(live_tokens_);
  if (needed < t.used) {
    t.used = needed;
    shared_.changed();
  }
}

void Engine::generate() {
  for (Sequence& s : running_) {
    if (s.prefilled > 0) {
      --s.prefilled;
      continue;
    }
    live_tokens_ -= in_blocks(s.tokens);
    ++s.tokens;
    ++s.produced;
    if (s.produced < s.request.generate) live_tokens_ += in_blocks(s.tokens);
  }
  stats_.done += std::erase_if(running_, [this](const Sequence& s) {
    if (s.produced < s.request.generate) return false;
    stats_.tokens += s.request.prompt + s.produced;
    return true;
  });
}

// The oldest begins when all its pages are there, and a block more for each that runs, so that it
// is not preempted at once. What it lacks is the tenant's wish until then.
void Engine::admit() {
  balance::Tenant& t = own();
  while (!waiting_.empty() && running_.size() < kMostRunning) {
    Sequence& head = waiting_.front();
    const std::uint32_t tokens = head.tokens_to_begin();
    const std::uint64_t reserve = kBlockTokens * (running_.size() + 1);
    const Pages after = pages_for(live_tokens_ + in_blocks(tokens) + reserve);
    const Pages need = after.minus_clamped(t.used);
    if (need) {
      const bool first = !t.want;
      if (first) t.since = now();
      if (t.want != need) {
        t.want = need;
        shared_.changed();
      }
      if (!take(need, true)) return;
      t.want = Pages();
    }
    head.tokens = tokens;
    head.prefilled = tokens / kPrefillTokens;
    live_tokens_ += in_blocks(tokens);
    if (!std::exchange(head.begun, true)) stats_.waits.push_back(step_ - head.request.arrival);
    running_.push_back(head);
    waiting_.pop_front();
  }
  if (waiting_.empty()) t.want = Pages();
}

// What an agent does aside: obey, let go of what is no longer worth keeping, refill ahead of what
// the engine says that it needs next.
void Engine::keep_house() {
  balance::Tenant& t = own();
  if (t.leaving) {
    shared_.give_back(place_, t.leaving);
    t.leaving = Pages();
  }
  if (!shared_.is_elastic()) return;
  const Blocks used(t.used.value);
  Pages expected = next().minus_clamped(t.used);
  warm_.sample(now(), used, !used);
  // Where nothing is asked back, what is kept in a pool that is short is lost to the others.
  if (!shared_.asks_back() && shared_.level() >= balance::Level::tight) {
    expected = Pages();
    warm_.forget();
  }
  t.leaving = shared_.due(place_, now());
  const Pages keep(warm_.keep(used, Blocks(expected.value)).value);
  const Pages surplus = balance::whole(balance::idle(t).minus_clamped(keep), t.stripe);
  t.leaving += surplus;
  if (t.leaving) {
    stats_.warm.vain += t.leaving.value;
    shared_.changed();
  }
  if (!t.leaving && !t.want && balance::idle(t) < expected) {
    shared_.grant(place_, balance::whole(expected - balance::idle(t), t.stripe), now(),
                  balance::Purpose::ahead);
  }
}

void Engine::step(std::uint64_t step) {
  step_ = step;
  arrive();
  if (waiting_.empty() && running_.empty() && own().charged == Pages() && step % 50 != 0) return;
  generate();
  resize();
  admit();
  const balance::Tenant& t = own();
  if (t.want && t.charged < t.min) ++stats_.below_minimum;
  keep_house();
  if ((step + place_) % 10 == 0) {
    own().demand = foresight_ == Foresight::queue ? std::max(own().used, queued()) : own().used;
  }
}

// What runs and all that waits.
Pages Engine::queued() const {
  std::uint64_t tokens = live_tokens_;
  for (const Sequence& s : waiting_) tokens += in_blocks(s.tokens_to_begin());
  return pages_for(tokens);
}

// In the next step: a block more for each that runs, and the oldest that waits.
Pages Engine::next() const {
  std::uint64_t tokens = live_tokens_ + kBlockTokens * running_.size();
  if (!waiting_.empty() && running_.size() < kMostRunning) {
    tokens += in_blocks(waiting_.front().tokens_to_begin());
  }
  return pages_for(tokens);
}

void Engine::end(std::uint64_t step) {
  for (const Sequence& s : waiting_) {
    if (!s.begun) stats_.waits.push_back(step - s.request.arrival);
  }
}

}  // namespace kvcached::replay
