// CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, which the driver refuses for mapped memory, is there for
// elastic memory all the same: synchronous copies and fills wait.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

class SyncMemops : public testing::TestWithParam<const char*> {
 protected:
  static Outcome run(const char* what, const Environment& variables) {
    return run_program({program("sync_memops"), GetParam(), what}, variables);
  }
};

TEST_P(SyncMemops, AreThoseOfPlainMemory) {
  const auto plain = run("plain", {});
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(value_of(plain.out, "before"), "0 waits 0");
  EXPECT_EQ(value_of(plain.out, "fill"), "0 waits 1");
  auto variables = elastic();
  variables["KVCACHED_LOG"] = "info";
  // Once each way.
  if (GetParam() != std::string("linked")) variables["KVCACHED_HINTS"] = "args";
  const auto with = run("plain", variables);
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, plain.out);
  EXPECT_NE(with.err.find("is elastic, by rule"), std::string::npos) << with.err;
}

TEST_P(SyncMemops, LeaveCapturesAlone) {
  const auto with = run("captures", elastic());
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out,
            "alloc 0\nalloc 0\nset 0\n"
            "begin apart 0\nfill 0 waits 1\nend 0\n"
            "begin thread's 0\nfill 0\nend 0\n"
            "begin blocking 0\nset 0\nend 0\n"
            "read 0\nread many 0\nvalue 1 1\n");
}

TEST_P(SyncMemops, WaitForTheMemorysOwnContext) {
  auto variables = elastic();
  variables["SIM_GPU_COUNT"] = "2";
  const auto with = run("elsewhere", variables);
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, "alloc 0\nwhat was begun there 0 waits 1\n");
}

// Without a rule, look-ups do not lead to us: nobody would wait.
TEST_P(SyncMemops, AreTheDriversWhereItsCallsAre) {
  const auto with = run("tagged", elastic());
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, "alloc 0\nback 0\nset 0\nread 0\nread many 0\nvalue 1 1\nfill 0 waits 1\n");
  const auto without_rule = run("tagged", {{"LD_PRELOAD", library()}});
  ASSERT_EQ(without_rule.status, 0) << without_rule.err;
  EXPECT_EQ(without_rule.out,
            "alloc 0\nback 0\nset 801\nread 0\nread many 0\nvalue 0 0\nfill 0 waits 0\n");
}

TEST_P(SyncMemops, AreNotSetWhereTheDriverRefusesWhatTheyNeed) {
  const std::string control = testing::TempDir() + "sync-memops-" + std::to_string(getpid());
  const auto run_with = [&](const std::string& fault) {
    std::ofstream(control) << fault << " error=999\n";
    auto variables = elastic();
    variables["SIM_GPU_FAULTS"] = control;
    const auto with = run("tagged", variables);
    EXPECT_EQ(with.status, 0) << with.err;
    return with.out;
  };
  for (const char* fault :
       {"cuPointerSetAttribute nth=1", "cuStreamSynchronize nth=1", "cuStreamSynchronize nth=2"}) {
    EXPECT_EQ(run_with(fault),
              "alloc 0\nback 0\nset 999\nread 0\nread many 0\nvalue 0 0\nfill 0 waits 0\n")
        << fault;
  }
  // The program's own is the third.
  EXPECT_EQ(run_with("cuStreamSynchronize nth=4"),
            "alloc 0\nback 0\nset 0\nread 0\nread many 0\nvalue 1 1\nfill 999 waits 0\n");
  std::remove(control.c_str());
}

INSTANTIATE_TEST_SUITE_P(Ways, SyncMemops, testing::Values("linked", "looked_up"),
                         [](const auto& way) { return std::string(way.param); });

}  // namespace
}  // namespace kvcached::test
