// Eight callers and one agent on one cache. For the thread sanitizer, and for what only
// interleaving finds: nobody's block is another's, nothing is lost, everybody who waits is woken.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "shim/cache/cache.hpp"
#include "tests/unit/cache/cache_rig.hpp"

namespace kvcached::cache {
namespace {

using std::chrono::milliseconds;
using test::Call;
using test::Rig;
using test::Status;
using test::tensors;

class CacheThreads : public testing::Test {
 protected:
  static constexpr unsigned kCallers = 8;
  static constexpr std::uint64_t kBlocks = 2'000;

  CacheThreads()
      : owner_(kBlocks), rig_(tensors(2, kBlocks, Bytes(128 << 10)), Pages(300), Pages(100)) {}
  void SetUp() override { ASSERT_EQ(rig_.make(), Result::ok); }

  driver::Address address(std::uint64_t block) const {
    return rig_.buffers[1]->base() + block * (128 << 10);
  }

  void caller(unsigned id, int rounds) {
    std::mt19937 random(id);
    std::vector<BlockRange> mine;
    std::array<BlockRange, 16> out;
    // Longer where the agent hardly gets to run, or meets a fault at first.
    for (int i = 0; i < rounds || (!enough() && i < 1'000'000); ++i) {
      if (i >= rounds) std::this_thread::yield();
      const std::uint64_t wanted = 1 + random() % 60;
      if (random() % 4 == 0) {
        rig_.cache->wait_ready(wanted, rig_.clock.now() + milliseconds(1), Patience::mapping);
      }
      const Acquired got = rig_.cache->acquire(wanted, random() % 8 == 0, out);
      for (std::size_t r = 0; r < got.ranges; ++r) {
        for (std::uint64_t b = out[r].first; b < out[r].end(); ++b) {
          EXPECT_EQ(owner_[b].exchange(id + 1), 0U);
          rig_.driver.poke(address(b), id * 1'000'000 + b);
        }
        mine.push_back(out[r]);
      }
      taken_ += got.blocks;
      if (random() % 3 == 0) rig_.cache->expect(random() % 200);
      while (mine.size() > 6 || (!mine.empty() && random() % 3 == 0)) give_back(id, mine, random());
    }
    while (!mine.empty()) give_back(id, mine, 0);
  }

  bool enough() const { return taken_ > kCallers * 100U && rig_.cache->stats().grows > 10U; }

  void give_back(unsigned id, std::vector<BlockRange>& mine, std::size_t which) {
    const BlockRange range = mine[which % mine.size()];
    mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(which % mine.size()));
    for (std::uint64_t b = range.first; b < range.end(); ++b) {
      EXPECT_EQ(rig_.driver.peek(address(b)), id * 1'000'000 + b);
      EXPECT_EQ(owner_[b].exchange(0), id + 1);
    }
    EXPECT_EQ(rig_.cache->release({&range, 1}), Result::ok);
  }

  void run(bool with_faults) {
    std::atomic<bool> stop{false};
    std::thread agent([&] {
      std::mt19937 random(99);
      while (!stop) {
        if (random() % 8 == 0) rig_.driver.finish();
        if (random() % 16 == 0) rig_.clock.advance(milliseconds(70));
        if (random() % 64 == 0) rig_.cache->trim();
        if (with_faults && random() % 32 == 0) {
          rig_.driver.fail(static_cast<Call>(random() % test::kCalls), random() % 4);
        }
        if (random() % 16 == 0) rig_.cache->stats();
        if (!rig_.cache->work().worked) std::this_thread::yield();
      }
    });
    std::vector<std::thread> callers;
    for (unsigned id = 0; id < kCallers; ++id) {
      callers.emplace_back([this, id] { caller(id, 150); });
    }
    for (std::thread& caller : callers) caller.join();
    stop = true;
    agent.join();
    rig_.driver.fail_nothing();

    EXPECT_TRUE(enough());
    EXPECT_EQ(rig_.cache->stats().live, 0U);
    rig_.cache->trim();
    rig_.settle();
    EXPECT_EQ(rig_.cache->stats().held, Pages());
    EXPECT_TRUE(rig_.exact());
  }

  std::vector<std::atomic<std::uint32_t>> owner_;
  Rig rig_;
  std::atomic<std::uint64_t> taken_{0};
};

TEST_F(CacheThreads, InPeace) { run(false); }
TEST_F(CacheThreads, UnderFaults) { run(true); }

TEST_F(CacheThreads, WaitersAndNoAgent) {
  rig_.budget.set_pool(Pages(280));
  std::vector<std::thread> callers;
  for (unsigned id = 0; id < kCallers; ++id) {
    callers.emplace_back([this] {
      EXPECT_EQ(rig_.cache->wait_ready(1'000, Instant::max(), Patience::pool), Result::ok);
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_GE(rig_.cache->available(), 1'000U);
}

TEST_F(CacheThreads, WaitingForPressure) {
  EXPECT_EQ(rig_.cache->wait_pressure(rig_.clock.now()), Result::shortage);
  std::array<Result, 3> found{};
  std::atomic<unsigned> answered{0};
  const auto wait = [&](std::size_t i) {
    found[i] = rig_.cache->wait_pressure(Instant::max());
    ++answered;
  };
  std::thread first(wait, 0);
  std::thread second(wait, 1);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(answered, 0U);
  rig_.cache->set_pressure(Pages(1));
  first.join();
  second.join();
  EXPECT_EQ(rig_.cache->wait_pressure(Instant::max()), Result::ok) << "as long as there is some";
  rig_.cache->set_pressure(Pages());
  std::thread third(wait, 2);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(answered, 2U);
  rig_.cache->close();
  third.join();
  EXPECT_EQ(found, (std::array{Result::ok, Result::ok, Result::lost}));
}

TEST_F(CacheThreads, FreedUnderneath) {
  std::vector<std::thread> callers;
  for (unsigned id = 0; id < kCallers; ++id) {
    callers.emplace_back([this] {
      std::array<BlockRange, 16> out;
      for (;;) {
        const Acquired got = rig_.cache->acquire(20, false, out);
        if (got.result == Result::lost) return;
        rig_.cache->release({out.data(), got.ranges});
        rig_.cache->work();
      }
    });
  }
  while (rig_.cache->stats().grows == 0) std::this_thread::yield();
  EXPECT_EQ(rig_.buffers[0]->destroy(), Result::ok);
  for (std::thread& caller : callers) caller.join();
  rig_.settle();
  EXPECT_TRUE(rig_.cache->finished());
  EXPECT_EQ(rig_.budget.charged(), Pages());
  EXPECT_TRUE(rig_.exact());
}

}  // namespace
}  // namespace kvcached::cache
