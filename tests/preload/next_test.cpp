// Other interposers keep working beside the library: RTLD_NEXT and RTLD_DEFAULT mean to them what
// they meant without it, before or after it in the order of libraries.
#include <gtest/gtest.h>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

std::string others() { return helper_library("wrapper") + " " + helper_library("bystander"); }

void expect_same_searches(const Outcome& with, const Outcome& alone) {
  for (const char* key : {"program_next", "wrapper_next", "wrapper_default", "missing",
                          "missing_error", "alloc", "wrapper_calls", "fill", "wrapper_fills",
                          "driver_alloc", "driver_fill", "calls_after", "fills_after", "free"}) {
    EXPECT_FALSE(value_of(alone.out, key).empty()) << key;
    EXPECT_EQ(value_of(with.out, key), value_of(alone.out, key)) << key;
  }
}

class Next : public testing::TestWithParam<bool> {};

TEST_P(Next, WrappersFindWhatComesAfterThem) {
  const auto alone = run_program({program("next")}, {{"LD_PRELOAD", others()}});
  ASSERT_EQ(alone.status, 0) << alone.err;
  EXPECT_EQ(value_of(alone.out, "wrapper_next"), "bystander");
  EXPECT_EQ(value_of(alone.out, "program_next"), "wrapper");
  EXPECT_EQ(value_of(alone.out, "wrapper_calls"), "1");

  // Elastic memory never gets to a wrapper behind us; plain memory does.
  auto variables = elastic();
  const bool first = GetParam();
  if (first) variables["KVCACHED_MATCH"] = "size>=1GiB";
  variables["LD_PRELOAD"] = first ? library() + " " + others() : others() + " " + library();
  const auto with = run_program({program("next")}, variables);
  ASSERT_EQ(with.status, 0) << with.err;
  expect_same_searches(with, alone);
  EXPECT_EQ(value_of(with.out, "elastic"), first ? "0" : "1");
}

INSTANTIATE_TEST_SUITE_P(Order, Next, testing::Bool(), [](const auto& order) {
  return order.param ? "LibraryFirst" : "WrapperFirst";
});

TEST(Absent, NoFunctionOfTheDriverAppearsWithoutIt) {
  const auto alone = run_program({program("absent")});
  const auto with = run_program({program("absent")}, {{"LD_PRELOAD", library()}});
  EXPECT_EQ(with.status, 0);
  EXPECT_NE(alone.out.find("cuMemAlloc_v2 found 0 error 1"), std::string::npos);
  EXPECT_EQ(with.out, alone.out);
}

}  // namespace
}  // namespace kvcached::test
