// Fences and stream captures: one would ruin the other, so they take turns.
#include <gtest/gtest.h>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

class Capture : public testing::TestWithParam<const char*> {};

TEST_P(Capture, IsNotRuinedByMemoryThatIsGivenBack) {
  const std::string way = GetParam();
  const auto outcome = run_program({program("capture"), way}, {{"LD_PRELOAD", library()}});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const std::string ended = way == "destroy" ? "destroy 0\n" : "end 0\ngraph 1\n";
  EXPECT_EQ(outcome.out,
            "grow 0\nresident 16777216\nbegin 0\ncapture 0\nshrink 0\nback 0\nstatus 1\n" + ended +
                "back 1\nfree 0\n")
      << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(Ways, Capture, testing::Values("end", "per_thread", "destroy"),
                         [](const auto& way) { return std::string(way.param); });

TEST(Captures, SufferFromNothingInAnyModeOnAnyThread) {
  auto variables = on_small_gpu({{"LD_PRELOAD", library()}}, "1GiB");
  variables["KVCACHED_MATCH"] = "size>=5MiB,size<=7MiB";
  const auto outcome = run_program({program("captures")}, variables);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "combinations 266\nfree 0 left 0\n") << outcome.err;
}

}  // namespace
}  // namespace kvcached::test
