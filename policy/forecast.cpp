#include "policy/forecast.hpp"

#include <cmath>

namespace kvcached::forecast {

Demand::Demand(Spans spans) noexcept
    : recent_(static_cast<std::size_t>(std::max<Duration::rep>(
          1, (spans.short_span + spans.epoch() - Duration(1)) / spans.epoch()))),
      epochs_(spans.epoch()) {}

void Demand::sample(Instant now, Pages used) noexcept {
  const bool first = epochs_.empty();
  // Use lasts until the next sample: an epoch begins with what the one before ended with.
  Range& range = epochs_.at(now, [this](Range& next, const Range&) { next = {last_, last_}; });
  if (first) range = {used, used};
  range.least = std::min(range.least, used);
  range.most = std::max(range.most, used);
  last_ = used;
}

Pages Demand::pages() const noexcept {
  Pages peak;
  Pages trend;
  Pages swing;
  epochs_.each([&](const Range& range, std::size_t age) {
    peak = std::max(peak, range.most);
    trend = std::max(trend, range.least);
    if (age < recent_) swing = std::max(swing, range.most - range.least);
  });
  return std::min(peak, trend + swing);
}

double falling_smootherstep(double x) noexcept {
  const double y = 1 - std::clamp(x, 0.0, 1.0);
  return y * y * y * (y * (6 * y - 15) + 10);
}

namespace {

constexpr Duration kFirstRefill = std::chrono::milliseconds(10);
constexpr Duration kShortestRefill = std::chrono::milliseconds(1);
constexpr Duration kLongestRefill = std::chrono::seconds(1);

// Moves what is noted by age on by the steps of `length` that have passed since `began`.
template <std::size_t N>
void age(std::array<Pages, N>& noted, Instant& began, Instant now, Duration length) {
  length = std::max(length, Duration(1));
  const std::int64_t steps = (now - began) / length;
  if (steps <= 0) return;
  began += length * steps;
  const auto shift = std::min(static_cast<std::size_t>(steps), N);
  std::move_backward(noted.begin(), noted.end() - static_cast<std::ptrdiff_t>(shift), noted.end());
  std::fill_n(noted.begin(), shift, Pages());
}

}  // namespace

Warm::Warm(Pages stripe, WarmRules rules, Spans spans) noexcept
    : stripe_(std::max(stripe, Pages(1))),
      rules_(rules),
      refill_(kFirstRefill),
      bursts_(spans.epoch()) {}

void Warm::took(Instant now, Pages pages, Pages ready) noexcept {
  score_.hits += std::min(pages, ready).value;
  score_.misses += pages.minus_clamped(ready).value;
  age(parts_, part_began_, now, refill_ / std::int64_t{kParts});
  parts_[0] += pages;
  Pages sum;
  for (const Pages each : parts_) sum += each;
  Pages& largest = bursts_.at(now, [](Pages&, const Pages&) {});
  largest = std::max(largest, sum);

  // What was freed is used again, the latest first: the oldest is the least likely to be needed.
  Pages again = std::min(pages, ready);
  for (Pages& each : freed_) {
    const Pages taken = std::min(each, again);
    each -= taken;
    again -= taken;
  }
}

void Warm::refilled(Duration time) noexcept {
  time = std::clamp(time, kShortestRefill, kLongestRefill);
  refill_ += (time - refill_) / 8;
}

Pages Warm::burst(Instant now) noexcept {
  bursts_.at(now, [](Pages&, const Pages&) {});
  Pages largest;
  bursts_.each([&](const Pages& each, std::size_t) { largest = std::max(largest, each); });
  return largest;
}

Pages Warm::low(Instant now) noexcept {
  const Pages largest = burst(now);
  // Hundreds of tenants that sleep must not hold pages for a burst that none of them has had.
  if (!largest) return {};
  const Pages wanted((largest.value * 3 + 1) / 2);
  return balance::whole_up(std::clamp(wanted, rules_.least, rules_.most), stripe_);
}

Pages Warm::high(Instant now) noexcept {
  const Pages from = low(now);
  return from ? from + balance::whole_up(rules_.headroom, stripe_) : from;
}

void Warm::decay(Instant now) noexcept {
  const Duration whole = level_ >= balance::Level::brisk ? rules_.decay / 4 : rules_.decay;
  age(freed_, stepped_, now, whole / std::int64_t{kSteps});
}

void Warm::freed(Instant now, Pages pages) noexcept {
  decay(now);
  freed_[0] += pages;
}

Pages Warm::keep(Instant now, balance::Level level) noexcept {
  decay(now);
  level_ = level;
  if (level >= balance::Level::tight) {
    freed_ = {};
    return level == balance::Level::bare ? Pages() : low(now);
  }
  double surplus = 0;
  for (std::size_t i = 0; i < kSteps; ++i) {
    surplus += static_cast<double>(freed_[i].value) *
               falling_smootherstep(static_cast<double>(i) / kSteps);
  }
  return high(now) + balance::whole(Pages(static_cast<std::uint64_t>(surplus)), stripe_);
}

}  // namespace kvcached::forecast
