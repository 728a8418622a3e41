#include "shim/cache/fences.hpp"

#include <algorithm>

namespace kvcached::cache {

Fences::Fences(driver::Driver& driver, driver::ContextId context) noexcept
    : driver_(driver), context_(context) {}

Fences::~Fences() {
  for (std::size_t i = 0; i < count_; ++i) driver_.drop_fence(context_, open_[i].fence);
}

Result Fences::take(Ticket& out) noexcept {
  if (count_ == open_.size()) return Result::not_now;
  driver::Fence fence;
  driver::Status status = driver_.fence(context_, fence);
  if (status == driver::Status::ok) {
    out = ++last_;
    open_[count_++] = {fence, out};
    pause_ = kShortest;
    return Result::ok;
  }
  if (status == driver::Status::not_now || status == driver::Status::lost) return result_of(status);

  // No fences here: waiting for the work does as well. It covers the open ones too.
  status = driver_.synchronize(context_);
  if (status != driver::Status::ok) return result_of(status);
  out = ++last_;
  pass(count_);
  passed_ = out;
  return Result::ok;
}

Result Fences::poll() noexcept {
  while (count_ != 0) {
    const driver::Status status = driver_.fence_passed(context_, open_[0].fence);
    if (status == driver::Status::not_now) {
      pause_ = std::min(2 * pause_, kLongest);
      return Result::ok;
    }
    if (status == driver::Status::lost) return Result::lost;
    if (status != driver::Status::ok) {
      // A fence that cannot be asked would hold its stripes for ever.
      const driver::Status waited = driver_.synchronize(context_);
      if (waited == driver::Status::lost) return Result::lost;
      if (waited != driver::Status::ok) return Result::ok;
      pass(count_);
      return Result::ok;
    }
    pass(1);
  }
  return Result::ok;
}

void Fences::pass(std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    driver_.drop_fence(context_, open_[i].fence);
    passed_ = open_[i].ticket;
  }
  for (std::size_t i = count; i < count_; ++i) open_[i - count] = open_[i];
  count_ -= count;
}

}  // namespace kvcached::cache
