#include "bench/engine/scheduler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

namespace kvcached::engine {
namespace {

constexpr std::uint32_t kBlockTokens = 4;
constexpr SchedulerSettings kSettings{kBlockTokens, 8, 64, 4, 1};

/// Memory as the kernels see it: which token of which request lies where.
class Memory {
 public:
  void run(const Plan& plan) {
    for (const Span& span : plan.writes) {
      for_each(plan, span, [&](std::uint64_t place, std::uint32_t position) {
        // No two requests write to one place in one step.
        EXPECT_TRUE(written_.insert(place).second);
        tokens_[place] = {span.seed, position};
      });
    }
    written_.clear();
    for (const Span& span : plan.checks) {
      for_each(plan, span, [&](std::uint64_t place, std::uint32_t position) {
        EXPECT_EQ(tokens_[place], std::make_pair(span.seed, position));
        ++checked_;
      });
    }
  }
  [[nodiscard]] std::uint64_t checked() const { return checked_; }

 private:
  template <typename Do>
  static void for_each(const Plan& plan, const Span& span, Do f) {
    for (std::uint32_t p = span.position; p < span.position + span.count; ++p) {
      const BlockNumber block = plan.tables.at(span.table + p / kBlockTokens);
      f(std::uint64_t{block} * kBlockTokens + p % kBlockTokens, p);
    }
  }

  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint32_t>> tokens_;
  std::set<std::uint64_t> written_;
  std::uint64_t checked_ = 0;
};

/// Gives what it likes, as a pool does that others use, too. Finds blocks given back twice.
class MoodyBlocks final : public Blocks {
 public:
  MoodyBlocks(std::uint64_t blocks, unsigned seed) : random_(seed) {
    for (std::uint64_t b = 0; b < blocks; ++b) {
      free_.insert(static_cast<BlockNumber>(b));
    }
  }
  std::uint64_t available() override { return free_.size(); }
  std::uint64_t take(std::uint64_t count, bool /*urgent*/,
                     std::vector<BlockNumber>& taken) override {
    std::uint64_t given = std::min<std::uint64_t>(count, free_.size());
    if (given > 0 && random_() % 4 == 0) {
      given = random_() % given;
    }
    for (std::uint64_t i = 0; i < given; ++i) {
      taken.push_back(*free_.begin());
      free_.erase(free_.begin());
    }
    return given;
  }
  void give_back(const std::vector<BlockNumber>& blocks) override {
    for (const BlockNumber b : blocks) {
      EXPECT_TRUE(free_.insert(b).second) << b;
    }
  }
  void ask(std::uint64_t count) override { asked = count; }
  void expect(std::uint64_t count) override { expected = count; }
  std::uint64_t resident_bytes() override { return 0; }

  std::uint64_t expected = 0;
  std::uint64_t asked = 0;

 private:
  std::set<BlockNumber> free_;
  std::minstd_rand random_;
};

TEST(Scheduler, RunsOneRequestToItsEnd) {
  StaticBlocks blocks(16, 0);
  Scheduler scheduler(kSettings, blocks, 16);
  Memory memory;
  scheduler.arrive({0, 5, 10, 3});
  for (std::uint64_t step = 7; step < 10; ++step) {
    EXPECT_EQ(scheduler.stats().finished, 0U);
    memory.run(scheduler.plan(step));
    scheduler.launched();
  }
  EXPECT_EQ(scheduler.stats().finished, 1U);
  EXPECT_EQ(scheduler.stats().tokens, 12U);  // the last token is made, not written
  EXPECT_EQ(scheduler.stats().waits, std::vector<std::uint64_t>{2});
  EXPECT_EQ(scheduler.running() + scheduler.waiting(), 0U);
  EXPECT_EQ(blocks.available(), 16U);
  EXPECT_GE(memory.checked(), 12U);  // all of it at the end
}

TEST(Scheduler, HoldsNoMoreThanItsTokensNeed) {
  StaticBlocks blocks(16, 0);
  Scheduler scheduler(kSettings, blocks, 16);
  scheduler.arrive({0, 0, 8, 10});
  std::vector<std::uint64_t> live;
  for (std::uint64_t step = 0; step < 6; ++step) {
    scheduler.plan(step);
    scheduler.launched();
    live.push_back(scheduler.live_blocks());
  }
  EXPECT_EQ(live, (std::vector<std::uint64_t>{2, 3, 3, 3, 3, 4}));
}

TEST(Scheduler, AdmitsInOrderAndWithinTheBudgetOfAStep) {
  StaticBlocks blocks(100, 0);
  Scheduler scheduler(kSettings, blocks, 100);
  scheduler.arrive({0, 0, 60, 50});
  scheduler.arrive({1, 0, 5, 50});
  scheduler.arrive({2, 0, 4, 50});
  scheduler.plan(0);
  EXPECT_EQ(scheduler.running(), 1U);
  scheduler.launched();
  scheduler.plan(1);
  EXPECT_EQ(scheduler.running(), 3U);
  scheduler.launched();
  scheduler.arrive({3, 2, 90, 2});  // alone it may exceed the budget
  scheduler.plan(2);
  EXPECT_EQ(scheduler.running(), 4U);
}

// Else those who share the pool keep what they have.
TEST(Scheduler, AsksForAsLongAsARequestWaits) {
  MoodyBlocks blocks(4, 1);
  std::vector<BlockNumber> taken_by_others;
  blocks.take(4, true, taken_by_others);
  Scheduler scheduler(kSettings, blocks, 4);
  scheduler.arrive({0, 0, 8, 1});
  scheduler.plan(0);
  scheduler.launched();
  for (std::uint64_t step = 1; step < 5; ++step) {
    blocks.asked = 0;
    scheduler.plan(step);
    scheduler.launched();
    EXPECT_EQ(blocks.asked, 2U) << "step " << step;
  }
}

TEST(Scheduler, PreemptsTheYoungestAndComputesItAgain) {
  StaticBlocks blocks(6, 0);
  Scheduler scheduler(kSettings, blocks, 6);
  Memory memory;
  scheduler.arrive({0, 0, 8, 9});
  scheduler.arrive({1, 0, 8, 9});
  std::vector<std::uint64_t> seeds;  // in order of their first write
  std::uint64_t step = 0;
  bool preempted = false;
  for (; scheduler.stats().finished < 2 && step < 100; ++step) {
    const Plan plan = scheduler.plan(step);
    memory.run(plan);
    scheduler.launched();
    for (const Span& span : plan.writes) {
      if (std::find(seeds.begin(), seeds.end(), span.seed) == seeds.end()) {
        seeds.push_back(span.seed);
      }
    }
    if (!preempted && scheduler.stats().preemptions > 0) {
      preempted = true;
      EXPECT_EQ(scheduler.running(), 1U);
      EXPECT_EQ(scheduler.waiting(), 1U);
      EXPECT_EQ(plan.writes.at(0).seed, seeds.at(0));  // the elder goes on
    }
  }
  EXPECT_TRUE(preempted);
  EXPECT_EQ(scheduler.stats().finished, 2U);
  // Every attempt writes other data, so that the last one's cannot pass for it.
  EXPECT_EQ(seeds.size(), 2 + scheduler.stats().preemptions);
  EXPECT_EQ(scheduler.stats().waits.size(), 2U);  // a second first token is none
  EXPECT_EQ(blocks.available(), 6U);
}

TEST(Scheduler, PutsThePreemptedBeforeThoseThatWait) {
  StaticBlocks blocks(6, 0);
  Scheduler scheduler(kSettings, blocks, 6);
  scheduler.arrive({0, 0, 8, 8});
  scheduler.arrive({1, 0, 8, 9});
  scheduler.arrive({2, 0, 8, 9});
  std::uint64_t step = 0;
  while (scheduler.stats().preemptions == 0 && step < 100) {
    scheduler.plan(step++);
    scheduler.launched();
  }
  ASSERT_EQ(scheduler.stats().preemptions, 1U);
  while (scheduler.stats().finished < 2 && step < 100) {
    scheduler.plan(step++);
    scheduler.launched();
    if (scheduler.stats().finished == 1) {
      EXPECT_EQ(scheduler.stats().waits.size(), 2U) << "the third began before the second ended";
    }
  }
  EXPECT_EQ(scheduler.stats().finished, 2U);
}

TEST(Scheduler, RejectsWhatCanNeverFit) {
  StaticBlocks blocks(6, 0);
  Scheduler scheduler(kSettings, blocks, 6);
  scheduler.arrive({0, 0, 22, 3});
  EXPECT_EQ(scheduler.stats().rejected, 1U);
  EXPECT_EQ(scheduler.waiting(), 0U);
}

TEST(Scheduler, ExpectsWhatTheNextStepCouldUse) {
  MoodyBlocks blocks(0, 1);
  Scheduler scheduler(kSettings, blocks, 100);
  scheduler.arrive({0, 0, 40, 2});
  scheduler.arrive({1, 0, 20, 2});
  scheduler.arrive({2, 0, 20, 2});  // beyond the step's budget
  scheduler.plan(0);
  scheduler.launched();
  EXPECT_EQ(blocks.expected, 10U + 1U + 5U + 1U);
}

TEST(Scheduler, ChecksAllThatRunsWhenItStopsEarly) {
  StaticBlocks blocks(16, 0);
  Scheduler scheduler(kSettings, blocks, 16);
  Memory memory;
  scheduler.arrive({0, 0, 10, 30});
  scheduler.arrive({1, 0, 10, 30});
  memory.run(scheduler.plan(0));
  scheduler.launched();
  const std::uint64_t before = memory.checked();
  memory.run(scheduler.abandon());
  EXPECT_EQ(memory.checked(), before + 20);
  EXPECT_LT(blocks.available(), 16U);  // until the checks are launched
  scheduler.launched();
  EXPECT_EQ(blocks.available(), 16U);
  EXPECT_EQ(scheduler.stats().finished, 0U);
}

TEST(Scheduler, KeepsEveryTokenThroughShortGrantsAndPreemption) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    std::minstd_rand random(seed);
    const std::uint64_t total = 12 + random() % 60;
    MoodyBlocks blocks(total, seed);
    Scheduler scheduler(kSettings, blocks, total);
    Memory memory;
    constexpr std::uint32_t kRequests = 60;
    std::uint32_t arrived = 0;
    std::uint64_t step = 0;
    for (; step < 20000 && (arrived < kRequests || scheduler.running() + scheduler.waiting() > 0);
         ++step) {
      while (arrived < kRequests && random() % 3 == 0) {
        scheduler.arrive({arrived++, step, static_cast<std::uint32_t>(1 + random() % 30),
                          static_cast<std::uint32_t>(1 + random() % 16)});
      }
      memory.run(scheduler.plan(step));
      ASSERT_LE(scheduler.running(), kSettings.max_batch);
      ASSERT_LE(scheduler.live_blocks() + blocks.available(), total);
      scheduler.launched();
      ASSERT_EQ(scheduler.live_blocks() + blocks.available(), total);
    }
    EXPECT_EQ(scheduler.stats().finished, kRequests) << seed << ' ' << step;
    EXPECT_EQ(scheduler.stats().waits.size(), kRequests);
    EXPECT_EQ(blocks.available(), total);
    EXPECT_GE(memory.checked(), std::uint64_t{kRequests});
  }
}

}  // namespace
}  // namespace kvcached::engine
