#include "shim/cache/buffer.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/cache/fakes.hpp"

namespace kvcached::cache {
namespace {

using test::Call;
using test::kContext;
using test::kMiB;
using test::Status;
using test::World;

class Nobody final : public Worker {
 public:
  Work work() noexcept override { return {}; }
  void close() noexcept override { closed = true; }
  bool finished() const noexcept override { return closed; }
  bool closed = false;
};

std::vector<PageRun> runs_of(std::uint32_t pages, Order cap) {
  std::vector<PageRun> runs;
  append_runs(0, pages, cap, runs);
  return runs;
}

// A buffer of 14 MiB in pieces of 2 MiB, claimed.
class BufferTest : public testing::Test {
 protected:
  void SetUp() override {
    buffer_ = world_.buffer(kMiB * 13);
    ASSERT_NE(buffer_, nullptr);
    ASSERT_EQ(buffer_->claim(nobody_), Result::ok);
    ASSERT_EQ(buffer_->repartition(runs_of(7, 0)), Result::ok);
  }
  Result back(std::size_t piece) {
    const Pages missing = buffer_->missing(piece);
    if (!world_.budget.charge(missing)) return Result::shortage;
    Pages kept;
    const Result result = buffer_->back(piece, kept);
    world_.budget.uncharge(missing - kept);
    return result;
  }
  Result unback(std::size_t piece) {
    Pages freed;
    const Result result = buffer_->unback(piece, freed);
    world_.budget.uncharge(freed);
    return result;
  }
  std::vector<PageRun> partition() const {
    std::vector<PageRun> runs;
    for (std::size_t i = 0; i < buffer_->piece_count(); ++i) runs.push_back(buffer_->piece_run(i));
    return runs;
  }
  World world_;
  std::shared_ptr<Nobody> nobody_ = std::make_shared<Nobody>();
  std::shared_ptr<Buffer> buffer_;
};

TEST(BufferCreate, ReservesWholePagesAndAliasesAllOfThem) {
  World world;
  const auto buffer = world.buffer(kMiB * 13);
  EXPECT_EQ(buffer->requested(), kMiB * 13);
  EXPECT_EQ(buffer->reserved(), kMiB * 14);
  EXPECT_EQ(buffer->use(), Use::unclaimed);
  EXPECT_EQ(buffer->held(), Pages());
  EXPECT_EQ(world.budget.charged(), Pages());
  EXPECT_EQ(world.held(), Pages());
  for (std::uint64_t mib = 0; mib < 14; ++mib) {
    EXPECT_TRUE(world.driver.extent_at(buffer->base() + (kMiB * mib).value).has_value());
  }
}

TEST(BufferCreate, RefusesNothingAndTooMuch) {
  World world;
  std::shared_ptr<Buffer> buffer;
  EXPECT_EQ(Buffer::create(world.ground(), Bytes(), kContext, buffer), Result::invalid);
  EXPECT_EQ(Buffer::create(world.ground(), Bytes::max(), kContext, buffer), Result::invalid);
  EXPECT_EQ(buffer, nullptr);
  EXPECT_TRUE(world.clean());
}

TEST(BufferCreate, MakesDoWithSmallScratchWhenTheGpuIsFull) {
  World world(Pages(8192));  // would like 32 MiB
  driver::Handle filler;
  ASSERT_EQ(world.driver.create({0}, bytes_of(Pages(8192 - 3)), filler), Status::ok);
  const auto buffer = world.buffer(kMiB * 64);
  ASSERT_NE(buffer, nullptr);
  EXPECT_LE(world.scratch.bytes(), kMiB * 6);
}

TEST(BufferCreate, EveryFailureLeavesNothing) {
  for (const Call call : {Call::reserve, Call::create, Call::map}) {
    for (std::uint64_t nth = 0; nth < 20; ++nth) {
      World world;
      world.driver.fail(call, nth);
      std::shared_ptr<Buffer> buffer;
      const Result result = Buffer::create(world.ground(), kMiB * 45, kContext, buffer);
      if (world.driver.struck() == 0) {
        EXPECT_EQ(result, Result::ok);
        buffer.reset();
      } else {
        EXPECT_NE(result, Result::ok);
        EXPECT_EQ(buffer, nullptr);
      }
      EXPECT_TRUE(world.clean()) << static_cast<int>(call) << " " << nth;
    }
  }
}

TEST(BufferCreate, WhatTheDriverKeepsOfAFailureIsHandedBack) {
  World world;
  world.driver.fail(Call::map, 3);
  world.driver.fail(Call::unmap, 1, Status::failed, 2);  // twice now, once when withdrawn
  std::shared_ptr<Buffer> buffer;
  EXPECT_EQ(Buffer::create(world.ground(), kMiB * 45, kContext, buffer), Result::failed);
  ASSERT_NE(buffer, nullptr);
  EXPECT_EQ(world.driver.mappings(), 1U);
  EXPECT_EQ(world.driver.calls(Call::unreserve), 0U) << "something is mapped there";
  EXPECT_EQ(buffer->destroy(), Result::ok);
  EXPECT_TRUE(world.clean());
}

TEST_F(BufferTest, OneExtentForAllWhoNeedAPiece) {
  EXPECT_EQ(buffer_->missing(2), Pages(1));
  ASSERT_EQ(back(2), Result::ok);
  EXPECT_EQ(buffer_->missing(2), Pages());
  ASSERT_EQ(back(2), Result::ok);
  EXPECT_EQ(buffer_->held(), Pages(1));
  EXPECT_EQ(buffer_->resident({}, kMiB * 13), kMiB * 2);
  EXPECT_EQ(buffer_->resident(kMiB * 5, kMiB * 8), kMiB);
  ASSERT_EQ(unback(2), Result::ok);
  EXPECT_EQ(buffer_->held(), Pages(1));
  ASSERT_EQ(unback(2), Result::ok);
  EXPECT_EQ(buffer_->held(), Pages());
  EXPECT_EQ(unback(2), Result::invalid);
  EXPECT_TRUE(world_.exact());
}

TEST_F(BufferTest, AFreshExtentIsZeroAndItsOwn) {
  const driver::Address at = buffer_->base() + (kMiB * 4).value;
  world_.driver.poke(at, 99);
  ASSERT_EQ(back(2), Result::ok);
  EXPECT_EQ(world_.driver.peek(at), 0U);
  world_.driver.poke(at, 7);
  EXPECT_NE(world_.driver.peek(buffer_->base()), 7U);
  ASSERT_EQ(unback(2), Result::ok);
  EXPECT_NE(world_.driver.peek(at), 7U);
}

TEST_F(BufferTest, ResidentEndsAtTheRequestedBytes) {
  for (std::size_t piece = 0; piece < 7; ++piece) ASSERT_EQ(back(piece), Result::ok);
  EXPECT_EQ(buffer_->resident({}, Bytes::max()), kMiB * 13);
  EXPECT_EQ(buffer_->resident(kMiB * 12, kMiB * 2), kMiB);
  EXPECT_EQ(buffer_->resident(kMiB * 20, kMiB), Bytes());
}

// Every driver call of backing fails in turn: the piece is as before, or lost where even putting
// the alias back failed, and the books say what the driver holds.
TEST_F(BufferTest, AFailedBackRestoresTheAlias) {
  const driver::Address at = buffer_->base() + (kMiB * 6).value;
  const auto scratch = world_.driver.extent_at(at);
  for (const Call call : {Call::create, Call::unmap, Call::map}) {
    world_.driver.fail(call, 0);
    EXPECT_EQ(back(3), Result::failed);
    EXPECT_FALSE(buffer_->piece_lost(3));
    EXPECT_EQ(world_.driver.extent_at(at), scratch);
    EXPECT_EQ(buffer_->missing(3), Pages(1));
    EXPECT_EQ(buffer_->stranded(), 0U);
    EXPECT_TRUE(world_.exact()) << static_cast<int>(call);
  }
  EXPECT_EQ(back(3), Result::ok);
}

TEST_F(BufferTest, AFullGpuIsAShortage) {
  world_.driver.set_capacity(world_.driver.used());
  EXPECT_EQ(back(3), Result::shortage);
  EXPECT_TRUE(world_.exact());
}

TEST_F(BufferTest, WhereEvenTheAliasFailsThePieceIsLost) {
  world_.driver.fail(Call::map, 0, Status::failed, 1);
  EXPECT_EQ(back(3), Result::failed);
  EXPECT_TRUE(buffer_->piece_lost(3));
  EXPECT_EQ(back(3), Result::failed);
  EXPECT_EQ(buffer_->held(), Pages());
  EXPECT_TRUE(world_.exact());
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_TRUE(world_.clean());
}

TEST_F(BufferTest, AnExtentThatIsNotReleasedStaysCharged) {
  world_.driver.fail(Call::map, 0);
  world_.driver.fail(Call::release, 0);
  EXPECT_EQ(back(3), Result::failed);
  EXPECT_EQ(buffer_->stranded(), 1U);
  EXPECT_EQ(buffer_->held(), Pages(1));
  EXPECT_TRUE(world_.exact());
  EXPECT_EQ(back(3), Result::failed);  // not before the first one is gone
  EXPECT_TRUE(world_.exact());
  Pages freed;
  buffer_->sweep(freed);
  world_.budget.uncharge(freed);
  EXPECT_EQ(buffer_->stranded(), 0U);
  EXPECT_TRUE(world_.exact());
  EXPECT_EQ(back(3), Result::ok);
}

TEST_F(BufferTest, AFailedUnbackLeavesThePieceBackedUntilASweep) {
  for (const Call call : {Call::unmap, Call::map}) {
    ASSERT_EQ(back(3), Result::ok);
    world_.driver.fail(call, 0);
    EXPECT_EQ(unback(3), Result::failed);
    EXPECT_EQ(buffer_->stranded(), 1U);
    EXPECT_EQ(buffer_->held(), Pages(1));
    EXPECT_EQ(buffer_->resident({}, kMiB * 13), Bytes());
    EXPECT_TRUE(world_.exact());
    Pages freed;
    buffer_->sweep(freed);
    world_.budget.uncharge(freed);
    EXPECT_EQ(freed, Pages(1));
    EXPECT_EQ(buffer_->stranded(), 0U);
    EXPECT_TRUE(world_.exact());
  }
}

TEST_F(BufferTest, AStrandedPieceIsTakenBackWithoutANewCharge) {
  ASSERT_EQ(back(3), Result::ok);
  world_.driver.fail(Call::unmap, 0);
  ASSERT_EQ(unback(3), Result::failed);
  EXPECT_EQ(buffer_->missing(3), Pages());
  ASSERT_EQ(back(3), Result::ok);
  EXPECT_EQ(buffer_->stranded(), 0U);
  EXPECT_EQ(buffer_->held(), Pages(1));
  EXPECT_EQ(unback(3), Result::ok);
  EXPECT_TRUE(world_.exact());
}

TEST_F(BufferTest, UnbackThatCanMapNothingLosesThePiece) {
  ASSERT_EQ(back(3), Result::ok);
  world_.driver.fail(Call::map, 0, Status::failed, 1);
  EXPECT_EQ(unback(3), Result::failed);
  EXPECT_TRUE(buffer_->piece_lost(3));
  EXPECT_EQ(buffer_->stranded(), 0U);
  EXPECT_TRUE(world_.exact());
}

TEST_F(BufferTest, RepartitionKeepsEveryAddressMapped) {
  const std::vector<std::vector<PageRun>> partitions = {
      {{0, 2}, {4, 1}, {6, 0}}, {{0, 0}, {1, 2}, {5, 1}}, runs_of(7, 0), runs_of(7, 2)};
  for (const auto& runs : partitions) {
    ASSERT_EQ(buffer_->repartition(runs), Result::ok);
    EXPECT_EQ(partition(), runs);
    EXPECT_EQ(world_.driver.mappings(), runs.size());
    for (std::uint64_t page = 0; page < 7; ++page) {
      EXPECT_TRUE(world_.driver.extent_at(buffer_->base() + page * kPageSize.value).has_value());
    }
  }
}

TEST_F(BufferTest, RepartitionToTheSameCallsNothing) {
  const std::uint64_t unmaps = world_.driver.calls(Call::unmap);
  ASSERT_EQ(buffer_->repartition(runs_of(7, 0)), Result::ok);
  EXPECT_EQ(world_.driver.calls(Call::unmap), unmaps);
}

TEST_F(BufferTest, RepartitionRefusesWhatDoesNotPartitionOrIsBacked) {
  EXPECT_EQ(buffer_->repartition(runs_of(8, 0)), Result::invalid);
  EXPECT_EQ(buffer_->repartition(runs_of(6, 0)), Result::invalid);
  EXPECT_EQ(buffer_->repartition({}), Result::invalid);
  const std::vector<PageRun> gap = {{0, 1}, {3, 2}};
  EXPECT_EQ(buffer_->repartition(gap), Result::invalid);
  ASSERT_EQ(back(0), Result::ok);
  EXPECT_EQ(buffer_->repartition(runs_of(7, 1)), Result::failed);
  EXPECT_EQ(partition(), runs_of(7, 0));
}

TEST_F(BufferTest, AFailedRepartitionLeavesEveryAddressMapped) {
  for (const Call call : {Call::create, Call::unmap, Call::map}) {
    for (std::uint64_t nth = 0; nth < 8; ++nth) {
      const std::uint64_t struck = world_.driver.struck();
      world_.driver.fail(call, nth);
      const Result result = buffer_->repartition(runs_of(7, 2));
      EXPECT_EQ(result != Result::ok, world_.driver.struck() != struck);
      world_.driver.fail_nothing();
      for (std::uint64_t page = 0; page < 7; ++page) {
        EXPECT_TRUE(world_.driver.extent_at(buffer_->base() + page * kPageSize.value).has_value());
      }
      for (std::size_t piece = 0; piece < buffer_->piece_count(); ++piece) {
        EXPECT_FALSE(buffer_->piece_lost(piece));
      }
      ASSERT_EQ(buffer_->repartition(runs_of(7, 0)), Result::ok);
    }
  }
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_TRUE(world_.clean());
}

TEST_F(BufferTest, ARepartitionThatCannotBeUndoneLosesWhatItDidNotReach) {
  ASSERT_EQ(buffer_->repartition(runs_of(7, 2)), Result::ok);
  // The third of the new cannot be aliased, the second of them not go, the third not even then.
  world_.driver.fail(Call::map, 2, Status::failed, 1);
  world_.driver.fail(Call::unmap, 1);
  EXPECT_EQ(buffer_->repartition(runs_of(7, 0)), Result::failed);
  std::vector<bool> lost;
  for (std::size_t i = 0; i < buffer_->piece_count(); ++i) lost.push_back(buffer_->piece_lost(i));
  EXPECT_EQ(lost, (std::vector<bool>{false, false, true, false, false, false}));
  EXPECT_EQ(buffer_->piece_run(2), (PageRun{2, 0}));
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_TRUE(world_.clean());
}

TEST_F(BufferTest, OnlyOneWorkerClaims) {
  EXPECT_EQ(buffer_->claim(std::make_shared<Nobody>()), Result::invalid);
  EXPECT_EQ(buffer_->back_whole(), Result::invalid);
  EXPECT_EQ(buffer_->worker(), nobody_);
  buffer_->unclaim();
  EXPECT_EQ(buffer_->worker(), nullptr);
  EXPECT_EQ(buffer_->claim(nobody_), Result::ok);
}

TEST_F(BufferTest, WhatIsSetForCopiesEndsWithIt) {
  for (const bool on : {true, false, true}) {
    EXPECT_TRUE(buffer_->set_sync_memops(on));
    EXPECT_FALSE(buffer_->set_sync_memops(on));
    EXPECT_EQ(buffer_->sync_memops(), on);
  }
  EXPECT_TRUE(buffer_->end_sync_memops());
  EXPECT_FALSE(buffer_->set_sync_memops(true) || buffer_->sync_memops());
  EXPECT_FALSE(buffer_->end_sync_memops());
}

TEST_F(BufferTest, DestroyClosesTheWorkerAndAnswersLostAfterwards) {
  ASSERT_EQ(back(1), Result::ok);
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_TRUE(nobody_->closed);
  EXPECT_EQ(buffer_->use(), Use::gone);
  EXPECT_TRUE(world_.clean());
  Pages pages;
  EXPECT_EQ(buffer_->back(0, pages), Result::lost);
  EXPECT_EQ(buffer_->unback(1, pages), Result::lost);
  EXPECT_EQ(buffer_->claim(nobody_), Result::lost);
  EXPECT_EQ(buffer_->back_whole(), Result::lost);
  EXPECT_EQ(buffer_->repartition(runs_of(7, 0)), Result::lost);
  EXPECT_EQ(buffer_->resident({}, kMiB), Bytes());
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_TRUE(world_.clean());
}

TEST_F(BufferTest, DestroyWaitsForWorkAndForTheEndOfACapture) {
  ASSERT_EQ(back(1), Result::ok);
  world_.driver.launch(buffer_->base() + kPageSize.value);
  world_.driver.set_capture(true);
  EXPECT_EQ(buffer_->destroy(), Result::not_now);
  EXPECT_FALSE(nobody_->closed);
  EXPECT_EQ(buffer_->held(), Pages(1));
  world_.driver.set_capture(false);
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_EQ(world_.driver.violations(), 0U);
}

TEST_F(BufferTest, DestroyGoesOnWhereAStepFailsAndEndsLater) {
  for (const Call call : {Call::unmap, Call::release, Call::unreserve}) {
    World world;
    auto buffer = world.buffer(kMiB * 14);
    ASSERT_EQ(buffer->back_whole(), Result::ok);
    world.driver.fail(call, 0);
    EXPECT_EQ(buffer->destroy(), Result::not_now);
    EXPECT_EQ(buffer->use(), Use::gone);
    EXPECT_TRUE(world.exact());  // what the driver kept stays charged
    EXPECT_EQ(world.budget.charged() == Pages(), call == Call::unreserve);
    EXPECT_LT(world.budget.charged(), Pages(7));
    Pages swept;
    buffer->sweep(swept);
    EXPECT_EQ(swept, Pages());
    EXPECT_EQ(buffer->destroy(), Result::ok);
    EXPECT_TRUE(world.clean());
    EXPECT_EQ(buffer->destroy(), Result::ok);
    EXPECT_EQ(world.driver.violations(), 0U);
  }
}

TEST_F(BufferTest, DestroyGivesUpInTheEnd) {
  World world;
  auto buffer = world.buffer(kMiB * 14);
  ASSERT_EQ(buffer->back_whole(), Result::ok);
  world.driver.fail(Call::release, 0, Status::failed, 1'000'000);
  int tries = 1;
  while (buffer->destroy() == Result::not_now && tries < 1000) ++tries;
  EXPECT_GT(tries, 20);
  EXPECT_LT(tries, 1000);
  EXPECT_TRUE(world.exact());
}

TEST_F(BufferTest, NothingIsTakenFromWorkThatCannotBeWaitedFor) {
  ASSERT_EQ(back(1), Result::ok);
  world_.driver.fail(Call::synchronize, 0);
  EXPECT_EQ(buffer_->destroy(), Result::not_now);
  EXPECT_FALSE(nobody_->closed);
  EXPECT_EQ(buffer_->held(), Pages(1));
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_TRUE(world_.clean());
}

TEST_F(BufferTest, ALostContextTakesEverythingAlong) {
  ASSERT_EQ(back(1), Result::ok);
  world_.driver.set_lost();
  buffer_->abandon();
  EXPECT_TRUE(nobody_->closed);
  EXPECT_EQ(world_.budget.charged(), Pages());
}

TEST_F(BufferTest, AContextThatOnlyErrsKeepsItsChargeUntilTheProcessEnds) {
  ASSERT_EQ(back(1), Result::ok);
  world_.driver.set_lost();
  EXPECT_EQ(buffer_->destroy(), Result::ok);
  EXPECT_EQ(world_.budget.charged(), Pages(1));
}

TEST(BufferWhole, BacksEverythingOnce) {
  World world;
  const auto buffer = world.buffer(kMiB * 13);
  ASSERT_EQ(buffer->back_whole(), Result::ok);
  EXPECT_EQ(buffer->use(), Use::whole);
  EXPECT_EQ(buffer->held(), Pages(7));
  EXPECT_EQ(buffer->resident({}, kMiB * 13), kMiB * 13);
  EXPECT_EQ(world.scratch.bytes(), Bytes());  // it never goes back
  EXPECT_TRUE(world.exact());
  EXPECT_EQ(buffer->back_whole(), Result::ok);
  EXPECT_EQ(buffer->held(), Pages(7));
}

TEST(BufferWhole, AllOrNothing) {
  World world(Pages(1024), Pages(6));
  const auto buffer = world.buffer(kMiB * 14);
  EXPECT_EQ(buffer->back_whole(), Result::shortage);
  EXPECT_EQ(world.budget.charged(), Pages());
  EXPECT_EQ(buffer->use(), Use::unclaimed);
  world.budget.set_pool(Pages(7));
  EXPECT_EQ(buffer->back_whole(), Result::ok);
}

TEST(BufferWhole, EveryFailureRestoresScratch) {
  for (const Call call : {Call::create, Call::unmap, Call::map}) {
    for (std::uint64_t nth = 0; nth < 20; ++nth) {
      World world;
      const auto buffer = world.buffer(kMiB * 62);
      const std::size_t mappings = world.driver.mappings();
      world.driver.fail(call, nth);
      const Result result = buffer->back_whole();
      EXPECT_EQ(result == Result::ok, world.driver.struck() == 0);
      EXPECT_EQ(world.driver.mappings(), mappings);
      EXPECT_TRUE(world.exact()) << static_cast<int>(call) << " " << nth;
      if (result != Result::ok) {
        EXPECT_EQ(world.budget.charged(), Pages());
        EXPECT_EQ(buffer->back_whole(), Result::ok);
      }
      EXPECT_EQ(buffer->held(), Pages(31));
    }
  }
}

}  // namespace
}  // namespace kvcached::cache
