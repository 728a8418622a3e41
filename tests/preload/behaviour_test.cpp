// Elastic memory behaves as cuMemAlloc's at the edges, and goes with its context.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

TEST(Behaviour, EdgesAreThoseOfPlainMemory) {
  const auto plain = run_program({program("behaviour")});
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(value_of(plain.out, "lost"), "0");
  const auto with = run_program({program("behaviour")}, elastic());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, plain.out);
}

TEST(Behaviour, EveryQuestionIsAnsweredAsForPlainMemory) {
  const auto plain = run_program({program("identity")});
  ASSERT_EQ(plain.status, 0) << plain.err;
  const auto with = run_program({program("identity")}, elastic());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, plain.out);
}

TEST(Behaviour, AFaultIsToldAsForPlainMemory) {
  const std::string control = testing::TempDir() + "faulted-" + std::to_string(getpid());
  const auto run = [&](Environment variables) {
    std::ofstream(control).close();
    variables["SIM_GPU_FAULTS"] = control;
    return run_program({program("faulted"), control}, variables);
  };
  const auto plain = run({});
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(plain.out, "alloc 0\nalloc 719\nfree 719\n");
  const auto with = run(elastic());
  std::remove(control.c_str());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, plain.out);
}

TEST(Behaviour, WhatCouldNotBeBackedIsBackedBeforeItIsUsed) {
  const std::string control = testing::TempDir() + "retried-" + std::to_string(getpid());
  std::ofstream(control).close();
  auto variables = elastic();
  variables["SIM_GPU_FAULTS"] = control;
  const auto outcome = run_program({program("retried"), control}, variables);
  std::remove(control.c_str());
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "alloc 0\nback -3\nfill 0\nresident 8388608 last 7\nfree 0\n");
}

// Or, where only other devices are to reach it, pinned if that can be.
TEST(Behaviour, SharingIsRefusedAndSaidOnce) {
  const auto with = run_program({program("sharing")}, elastic());
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out,
            "alloc 0\nipc 801\nipc 801\nfill 0\nfree 0\nplain 0\npin 0 resident 8388608\nmemory "
            "behind it 1\n"
            "dma-buf 0 some resident 8388608\ndma-buf 1 none resident 8388608\n"
            "pin 801 resident 2097152\npin 801 resident 2097152\n"
            "dma-buf 801 none resident 2097152\n");
  const auto log = lines_of(with.err);
  ASSERT_EQ(log.size(), 2U) << with.err;
  EXPECT_NE(log[0].find("an IPC handle was asked for"), std::string::npos) << log[0];
  EXPECT_NE(log[1].find("was to be pinned"), std::string::npos) << log[1];
}

TEST(Behaviour, SixtyFourThreadsAtOnce) {
  for (const Environment& variables : {Environment{}, elastic()}) {
    const auto outcome = run_program({program("behaviour"), "threads"}, variables);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "wrong answers 0\nlost 0\n") << outcome.err;
  }
}

// The simulated driver refuses calls about one handle that overlap; latency makes them overlap.
TEST(Behaviour, ThreadsThatAllocateAtOnceShareScratchInTurn) {
  auto variables = elastic();
  variables["SIM_GPU_LATENCY"] = "1";
  const auto outcome = run_program({program("behaviour"), "threads"}, variables);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "wrong answers 0\nlost 0\n");
  EXPECT_EQ(outcome.err, "");
}

class Contexts : public testing::TestWithParam<const char*> {};

TEST_P(Contexts, TakeTheirMemoryWithThem) {
  const auto with =
      run_program({program("contexts"), GetParam()}, on_small_gpu(elastic(), "256MiB"));
  ASSERT_EQ(with.status, 0) << with.err;
  const std::string taken = value_of(with.out, "taken");
  std::string round = "taken " + taken + "\nalloc 0\nelastic 1\nfill 0\nplain 0\n";
  if (std::string(GetParam()) == "release") round += "release 0\n";
  round += "end 0\nknown 0\n";
  EXPECT_EQ(with.out, round + round + round + round) << with.err;
}

INSTANTIATE_TEST_SUITE_P(Ways, Contexts, testing::Values("destroy", "reset", "release"),
                         [](const auto& way) { return std::string(way.param); });

TEST(Behaviour, PeersMayAccessWhatIsAllocatedAfterTheyWereEnabled) {
  for (const std::string when : {"allocated", "first of all", "before cuInit"}) {
    auto variables = elastic();
    variables["SIM_GPU_COUNT"] = "2";
    const auto with = run_program({program("peers"), when}, variables);
    ASSERT_EQ(with.status, 0) << with.err;
    EXPECT_EQ(with.out, "enable 0\nalloc 0\naccess 0 3\naccess 0 3\n") << when;
  }
}

TEST(Behaviour, AChildOfAForkDuringTheFirstCallIsNotStuck) {
  auto variables = on_small_gpu(elastic(), "256MiB");
  variables["LD_PRELOAD"] += ":" + helper_library("forks");
  const auto with = run_program({program("contexts"), "destroy"}, variables);
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(value_of(with.out, "child"), "0") << with.out;
}

class Closing : public testing::TestWithParam<const char*> {};

TEST_P(Closing, WaitsForCallsThatTheLibraryMakesInTheContext) {
  const std::string control = testing::TempDir() + "closing-" + std::to_string(getpid());
  std::ofstream(control).close();
  auto variables = on_small_gpu(elastic(), "256MiB");
  variables["SIM_GPU_FAULTS"] = control;
  const auto with = run_program({program("closing"), GetParam(), control}, variables);
  std::remove(control.c_str());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, "alloc 0\nfill 0\nfree 0\ncapture 0\nend 0\nwaited 1\nleft 0\n");
  EXPECT_EQ(with.err, "");
}

INSTANTIATE_TEST_SUITE_P(Ways, Closing, testing::Values("destroy", "reset"),
                         [](const auto& way) { return std::string(way.param); });

}  // namespace
}  // namespace kvcached::test
