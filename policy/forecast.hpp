// What a tenant will need, from what it needed: how many pages in the long run (its demand in the
// pool), and how many to keep backed without a block, so that growth finds them ready. Time comes
// in with the calls and must not go back. Nothing is allocated. Not thread-safe.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "policy/balance.hpp"
#include "policy/clock.hpp"
#include "policy/units.hpp"

namespace kvcached::forecast {

inline constexpr std::int64_t kEpochs = 16;

struct Spans {
  Duration short_span = std::chrono::seconds(5);  // how far back swings count
  Duration long_span = std::chrono::seconds(60);  // how far back anything counts
  Duration epoch() const { return std::max(long_span / kEpochs, Duration(1)); }
};

// The last kEpochs epochs of time, the present one included, and what was noted in each.
template <class Entry>
class Epochs {
 public:
  explicit Epochs(Duration length) : length_(length) {}

  // The present epoch's entry. `carry(entry, previous)` begins each one that has passed since.
  template <class Carry>
  Entry& at(Instant now, Carry carry) {
    const std::int64_t number = now.time_since_epoch() / length_;
    if (used_ == 0) begin(number);
    // After a long pause the whole ring is begun anew; what came before has no bearing.
    number_ = std::max(number_, number - kEpochs);
    while (number_ < number) {
      const Entry previous = ring_[index(number_)];
      begin(number_ + 1);
      carry(ring_[index(number_)], previous);
    }
    return ring_[index(number_)];
  }
  // `visit(entry, age)` for each epoch there was; the present one has age 0.
  template <class Visit>
  void each(Visit visit) const {
    for (std::size_t age = 0; age < used_; ++age) {
      visit(ring_[index(number_ - static_cast<std::int64_t>(age))], age);
    }
  }
  bool empty() const { return used_ == 0; }

 private:
  static std::size_t index(std::int64_t number) {
    return static_cast<std::size_t>(number) % std::size_t{kEpochs};
  }
  void begin(std::int64_t number) {
    number_ = number;
    ring_[index(number)] = Entry{};
    used_ = std::min(used_ + 1, std::size_t{kEpochs});
  }

  Duration length_;
  std::array<Entry, kEpochs> ring_{};
  std::int64_t number_ = 0;
  std::size_t used_ = 0;
};

// min(peak, trend + fluctuation): the highest level that use never fell below for an epoch, plus
// the widest swing within a recent epoch, but never more than was really used.
class Demand {
 public:
  explicit Demand(Spans spans = {}) noexcept;

  // Says how many pages are in use from now on.
  void sample(Instant now, Pages used) noexcept;
  Pages pages() const noexcept;

 private:
  struct Range {
    Pages least;
    Pages most;
  };
  std::size_t recent_;  // epochs
  Epochs<Range> epochs_;
  Pages last_;
};

// ---- warm stripes ----

struct WarmRules {
  Pages least{4};
  Pages most{64};
  Pages headroom{16};  // refilled to so much above the level at which refilling begins
  Duration decay = std::chrono::seconds(10);
};

// What keeping pages ready was worth, so that the figures above can be judged.
struct Score {
  std::uint64_t hits = 0;    // pages that growth found ready
  std::uint64_t misses = 0;  // pages that it had to wait for
  std::uint64_t vain = 0;    // pages that were let go without ever having been of use
};

class Warm {
 public:
  explicit Warm(Pages stripe, WarmRules rules = {}, Spans spans = {}) noexcept;

  // The engine put `pages` to use, of which `ready` were warm.
  void took(Instant now, Pages pages, Pages ready) noexcept;
  // `pages` that held blocks are empty now, and backed still.
  void freed(Instant now, Pages pages) noexcept;
  // A refill took so long, from the request to the last mapping.
  void refilled(Duration time) noexcept;
  // `pages` were let go.
  void released(Pages pages) noexcept { score_.vain += pages.value; }

  // Refill when fewer are warm, and up to `high`; whole stripes. Sized by what the engine takes
  // while a refill is under way.
  Pages low(Instant now) noexcept;
  Pages high(Instant now) noexcept;
  // As many may stay, whole stripes: `high`, and of what was freed a share that falls smoothly to
  // nothing. Load comes in waves, and the next one finds the pages of the last; a pool in need gets
  // them sooner, and one that is bare all of them.
  Pages keep(Instant now, balance::Level level) noexcept;

  const Score& score() const noexcept { return score_; }

 private:
  static constexpr std::size_t kSteps = 20;  // of the decay
  static constexpr std::size_t kParts = 4;   // of a refill's time

  void decay(Instant now) noexcept;
  Pages burst(Instant now) noexcept;

  Pages stripe_;
  WarmRules rules_;
  Score score_;

  // What is taken within a refill's time, whenever that begins: over parts of it, one more than it
  // has, the latest first.
  Duration refill_;
  Instant part_began_{};
  std::array<Pages, kParts + 1> parts_{};
  Epochs<Pages> bursts_;  // the largest of each epoch

  std::array<Pages, kSteps> freed_{};  // by age, in steps of the decay
  Instant stepped_{};
  balance::Level level_ = balance::Level::rest;
};

// 1 at 0, 0 at 1, level at both ends.
double falling_smootherstep(double x) noexcept;

}  // namespace kvcached::forecast
