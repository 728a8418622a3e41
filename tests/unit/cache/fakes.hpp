// What a buffer or a cache stands on, in memory: a pool, a clock, a waker, and all of it together.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "policy/clock.hpp"
#include "shim/cache/budget.hpp"
#include "shim/cache/buffer.hpp"
#include "shim/cache/scratch.hpp"
#include "shim/cache/worker.hpp"
#include "tests/unit/cache/fake_driver.hpp"

namespace kvcached::test {

class FakeBudget final : public cache::Budget {
 public:
  explicit FakeBudget(Pages pool) : pool_(pool) {}

  using Budget::charge;
  bool charge(Pages pages, Pages wish) noexcept override {
    {
      const std::lock_guard lock(mutex_);
      ++charges_;
      if (charged_ + pages <= pool_) {
        charged_ += pages;
        return true;
      }
      ++refusals_;
      if (wish) wish_ = wish;
    }
    if (on_refusal) on_refusal();
    return false;
  }
  void begin_wish() noexcept override {
    const std::lock_guard lock(mutex_);
    ++wishers_;
  }
  void drop_wish() noexcept override {
    const std::lock_guard lock(mutex_);
    if (wishers_ == 0 || --wishers_ == 0) wish_ = Pages();
  }
  // What was wished for at the last refusal.
  Pages wish() const {
    const std::lock_guard lock(mutex_);
    return wish_;
  }
  void uncharge(Pages pages) noexcept override {
    const std::lock_guard lock(mutex_);
    if (pages > charged_) understated_ = true;
    charged_ = charged_.minus_clamped(pages);
  }
  Pages limit() const noexcept override {
    const std::lock_guard lock(mutex_);
    return pool_;
  }

  Pages charged() const {
    const std::lock_guard lock(mutex_);
    return charged_;
  }
  // More was returned than had been charged.
  bool understated() const {
    const std::lock_guard lock(mutex_);
    return understated_;
  }
  std::uint64_t charges() const {
    const std::lock_guard lock(mutex_);
    return charges_;
  }
  std::uint64_t refusals() const {
    const std::lock_guard lock(mutex_);
    return refusals_;
  }
  void set_pool(Pages pages) {
    const std::lock_guard lock(mutex_);
    pool_ = pages;
  }
  // Called with each refusal, before its caller has it.
  std::function<void()> on_refusal;

 private:
  mutable std::mutex mutex_;
  Pages pool_;
  Pages charged_;
  Pages wish_;
  std::uint64_t wishers_ = 0;
  bool understated_ = false;
  std::uint64_t charges_ = 0;
  std::uint64_t refusals_ = 0;
};

class FakeClock final : public Clock {
 public:
  Instant now() const noexcept override { return Instant(Duration(now_.load())); }
  void advance(Duration by) { now_ += by.count(); }

 private:
  // Not the epoch: that stands for "at once" in the cache floor.
  std::atomic<std::int64_t> now_{std::chrono::nanoseconds(std::chrono::hours(1)).count()};
};

class FakeWaker final : public cache::Waker {
 public:
  void wake() noexcept override { ++wakes_; }
  std::uint64_t wakes() const { return wakes_; }

 private:
  std::atomic<std::uint64_t> wakes_{0};
};

inline constexpr Bytes kMiB{1ULL << 20};
inline constexpr ContextId kContext{};

// 2 GiB of memory: scratch extents of 2 and 4 MiB.
struct World {
  explicit World(Pages capacity = Pages(1024), Pages pool = Pages(900))
      : driver(capacity), budget(pool), scratch(driver, DeviceId{0}) {}

  cache::Ground ground() { return {driver, budget, scratch}; }

  std::shared_ptr<cache::Buffer> buffer(Bytes size) {
    std::shared_ptr<cache::Buffer> made;
    cache::Buffer::create(ground(), size, kContext, made);
    return made;
  }

  // Physical memory that is not scratch.
  Pages held() const { return driver.used() - pages_down(scratch.bytes()); }
  // The books: exactly what is held, and never less was charged.
  bool exact() const { return held() == budget.charged() && !budget.understated(); }
  bool overstated() const { return held() <= budget.charged() && !budget.understated(); }
  // Nothing is left of any buffer.
  bool clean() const {
    return driver.used() == Pages() && driver.mappings() == 0 && driver.reservations() == 0 &&
           budget.charged() == Pages() && !budget.understated() && driver.open_fences() == 0;
  }

  FakeDriver driver;
  FakeBudget budget;
  cache::Scratch scratch;
  FakeClock clock;
  FakeWaker waker;
};

}  // namespace kvcached::test
