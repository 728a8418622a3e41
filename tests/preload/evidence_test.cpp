// What nobody has claimed is backed whole before anything that gives work to the GPU.
#include <gtest/gtest.h>

#include "tests/preload/door_names.hpp"

namespace kvcached::test {
namespace {

class Evidence : public testing::TestWithParam<const char*> {};

TEST_P(Evidence, EveryKindOfWorkBacksUnclaimedBuffersFirst) {
  const auto outcome = run_program({program("evidence"), GetParam()}, elastic());
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto lines = lines_of(outcome.out);
  EXPECT_EQ(lines.size(), evidence_symbols().size());
  for (const auto& line : lines) {
    const auto answers = line.substr(line.find(' ') + 1);
    // These write to address 0, and read it.
    const auto faults =
        line.find("WriteValue") != std::string::npos || line.find("WaitValue") != std::string::npos;
    EXPECT_EQ(answers, "alloc 0 before 0 after 8388608 free " + std::string(faults ? "700" : "0"))
        << line;
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, Evidence, testing::Values("linked", "looked_up"),
                         [](const auto& way) { return std::string(way.param); });

TEST(Evidence, WorkIsRefusedWhenThereIsNoMemoryToBackItWith) {
  const auto outcome = run_program({program("shortage")}, on_small_gpu(elastic(), "128MiB"));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "alloc 0\nfill 2\nfill 0\nread 0\nlast 2\nfree 0\n") << outcome.err;
}

// What was looked up before is the driver's own, and would back nothing.
TEST(Evidence, ARuleThatComesTooLateMakesNothingElastic) {
  for (const std::string when : {"in time", "late"}) {
    const auto outcome =
        run_program({program("late_rule"), when},
                    on_small_gpu({{"LD_PRELOAD", library()}, {"KVCACHED_LOG", "info"}}, "256MiB"));
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    const std::string round = "alloc 0 to 0 from 0 lost 0\n";
    EXPECT_EQ(outcome.out, round + round) << when;
    const auto said = [&](const char* words) {
      return outcome.err.find(words) != std::string::npos;
    };
    EXPECT_EQ(said("is elastic, by rule"), when != "late") << outcome.err;
    EXPECT_EQ(said("KVCACHED_MATCH was set after"), when == "late") << outcome.err;
  }
}

class Full : public testing::TestWithParam<const char*> {};

TEST_P(Full, NoMoreIsGivenThanThereIs) {
  const auto run = [](const Environment& variables) {
    return run_program({program("full"), GetParam()}, on_small_gpu(variables, "128MiB"));
  };
  const auto plain = run({});
  ASSERT_EQ(plain.status, 0) << plain.err;
  ASSERT_EQ(plain.out, "first 0\nlate 2\nuse 0\n");
  const auto with = run(elastic());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, plain.out) << with.err;
  const int missing = std::stoi(plain.err) - std::stoi(with.err);
  EXPECT_LE(missing, 2) << plain.err << with.err;
}

INSTANTIATE_TEST_SUITE_P(Ways, Full,
                         testing::Values("plain", "elastic", "async", "pitch", "create"),
                         [](const auto& way) { return std::string(way.param); });

}  // namespace
}  // namespace kvcached::test
