// Nobody waits for ever: tenants that always want more beside one that asks now and then.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/policy/balance_rig.hpp"

namespace kvcached::balance {
namespace {

using std::chrono::milliseconds;

struct Request {
  std::size_t tenant;
  Pages pages;
  std::uint64_t end;
};

// Steps of a millisecond. A request begins when the whole wish is at hand and the gate lets it
// pass; until then its tenant keeps what it was granted. Agents come by every tenth step, so that
// an engine could refill what it frees before anyone sees it idle.
class World {
 public:
  explicit World(std::size_t tenants, unsigned seed) : rig_(300), random_(seed) {
    rig_.rules.age = milliseconds(500);
    rig_.rules.turn = milliseconds(3000);
    for (std::size_t i = 0; i < tenants; ++i) rig_.add(0, 0);
    longest_.resize(tenants);
  }
  Rig& rig() { return rig_; }
  std::uint64_t upto(std::uint64_t least, std::uint64_t most) {
    return least + random_() % (most - least + 1);
  }
  std::uint64_t step() const { return step_; }
  // The longest that a wish of the tenant has waited, one that still waits included.
  std::uint64_t longest(std::size_t i) const {
    const std::uint64_t now = rig_.tenants[i].want ? step_ - asked(i) : 0;
    return std::max(longest_[i], now);
  }

  void ask(std::size_t i, std::uint64_t pages) {
    rig_[i].want = Pages(pages);
    rig_[i].since = rig_.now;
  }

  template <class Ask>
  void run(std::uint64_t steps, Ask ask_now) {
    for (const std::uint64_t end = step_ + steps; step_ < end; ++step_) {
      rig_.now = Instant(milliseconds(step_));
      const std::size_t first = upto(0, rig_.tenants.size() - 1);
      for (std::size_t k = 0; k < rig_.tenants.size(); ++k) {
        const std::size_t i = (first + k) % rig_.tenants.size();
        finish(i);
        if (!rig_[i].want) ask_now(i);
        serve(i);
      }
    }
  }

 private:
  std::uint64_t asked(std::size_t i) const {
    return static_cast<std::uint64_t>(rig_.tenants[i].since.time_since_epoch() / milliseconds(1));
  }

  void finish(std::size_t i) {
    std::erase_if(running_, [&](const Request& r) {
      if (r.tenant != i || r.end > step_) return false;
      rig_[i].used -= r.pages;
      return true;
    });
    rig_[i].demand = rig_[i].used;
    rig_.plan();
    if (step_ % 10 == i) give_back(rig_[i], due(rig_[i], rig_.rules));
  }

  void serve(std::size_t i) {
    Tenant& t = rig_[i];
    if (!t.want) return;
    rig_.plan();
    if (missing(t)) grant(rig_.pool, rig_.tenants, i, missing(t));
    if (at_hand(t) < t.want || !may_reuse(t, t.want)) return;
    t.used += t.want;
    running_.push_back({i, t.want, step_ + upto(1, 400)});
    longest_[i] = std::max(longest_[i], step_ - asked(i));
    t.want = Pages();
  }

  Rig rig_;
  std::mt19937 random_;
  std::vector<Request> running_;
  std::vector<std::uint64_t> longest_;
  std::uint64_t step_ = 0;
};

// 500 steps until the claim is aged, 400 until the last block of the others is free.
constexpr std::uint64_t kBound = 1000;

// A waiter whose partial grants count as idle is taxed for them, gives them back, and never has all
// it needs at once. Without aging, which would hide it.
TEST(BalanceWaitingTest, AWaiterKeepsWhatItWasGranted) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    World world(3, seed);
    world.rig().rules.age = std::chrono::hours(1);
    std::uint64_t next = 0;
    world.run(10'000, [&](std::size_t i) {
      if (i < 2) {
        world.ask(i, world.upto(1, 20));
      } else if (world.step() >= next) {
        world.ask(i, world.upto(40, 90));
        next = world.step() + world.upto(1, 600);
      }
    });
    EXPECT_LE(world.longest(2), kBound) << "seed " << seed;
  }
}

TEST(BalanceWaitingTest, AModestTenantIsNotStarvedByGreedyOnes) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    World world(3, seed);
    std::uint64_t next = 0;
    world.run(10'000, [&](std::size_t i) {
      if (i < 2) {
        world.ask(i, world.upto(5, 60));
      } else if (world.step() >= next) {
        world.ask(i, world.upto(40, 90));
        next = world.step() + world.upto(1, 600);
      }
    });
    EXPECT_LE(world.longest(2), kBound) << "seed " << seed;
    EXPECT_LE(world.longest(0), kBound) << "seed " << seed;
    EXPECT_LE(world.longest(1), kBound) << "seed " << seed;
  }
}

// Each wish takes more than half of the pool, so that only one can be met at a time.
TEST(BalanceWaitingTest, LargeWishesTakeTurns) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    World world(3, seed);
    world.run(10'000, [&](std::size_t i) { world.ask(i, world.upto(151, 250)); });
    // Each may find two others before it.
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_LE(world.longest(i), 3 * kBound) << "seed " << seed << " tenant " << i;
    }
  }
}

// A wish that nobody can meet is always the oldest, and yet the others get what they need.
TEST(BalanceWaitingTest, AnEndlessWishHoldsUpNobody) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    World world(4, seed);
    world.rig()[3].max = Pages(280);
    world.run(20'000, [&](std::size_t i) { world.ask(i, i == 3 ? 290 : world.upto(60, 120)); });
    for (std::size_t i = 0; i < 3; ++i) {
      // The endless one has its turn of 3000, and once around the others.
      EXPECT_LE(world.longest(i), 3000 + 3 * kBound) << "seed " << seed << " tenant " << i;
    }
  }
}

// Everything is in use by an engine that keeps what it may keep. The other's wish is within its
// share: it must not take until it is aged, though no young wish is met from the last pages of a
// pool.
TEST(BalanceWaitingTest, AFullPoolMakesWayForAWishWithinItsShare) {
  std::mt19937 random(1);
  const auto upto = [&](std::uint64_t least, std::uint64_t most) {
    return least + random() % (most - least + 1);
  };
  for (int pool = 0; pool < 5'000; ++pool) {
    const std::uint64_t size = upto(100, 2000);
    Rig rig(size);
    const std::uint64_t full = size - upto(0, size / 20);
    rig.add(full, full).stripe = Pages(1U << upto(0, 3));
    rig.add(0, 0).stripe = Pages(1U << upto(0, 3));
    rig.wish(1, upto(1, size * 48 / 100 - 16));
    if (random() % 2 == 0) rig.wish(0, upto(1, size), milliseconds(500));  // younger
    Pages given;
    for (int round = 0; round < 10 && missing(rig[1]); ++round) {
      rig.plan();
      ASSERT_FALSE(rig[1].plan.aged);
      const Pages above = rig[0].used.minus_clamped(rig[0].plan.reuse);
      give_back(rig[0], std::min(rig[0].charged, whole_up(above, rig[0].stripe)));
      rig[0].used = rig[0].charged;
      rig.plan();
      given += grant(rig.pool, rig.tenants, 1, missing(rig[1]));
    }
    ASSERT_EQ(missing(rig[1]), Pages())
        << "pool " << pool << ": " << given.value << " of " << rig[1].want.value << " given by "
        << full << " of " << size;
    ASSERT_GE(rig[0].used + Pages(8), std::min(Pages(full), Pages(size / 2 - size / 50))) << pool;
  }
}

// What an engine gives back for another must not come back to itself, or both would go on for ever:
// it could not even use it.
TEST(BalanceWaitingTest, WhatIsGivenBackIsNotTakenAgain) {
  Rig rig(288);
  rig.add(279, 279).stripe = Pages(3);
  rig.add(0, 0).stripe = Pages(6);
  rig.wish(0, 3, milliseconds(500));
  rig.wish(1, 6);
  EXPECT_GT(rig.plan(), Pages());
  EXPECT_LT(rig[0].plan.reuse, rig[0].used);
  EXPECT_EQ(rig.grantable(0, 3), Pages());
  EXPECT_EQ(rig.grantable(0, 3, Purpose::ahead), Pages());
  rig[1].want = Pages();  // nobody waits any more
  rig.plan();
  EXPECT_EQ(rig.grantable(0, 3), Pages(3));
}

}  // namespace
}  // namespace kvcached::balance
