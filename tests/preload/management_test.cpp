// NVIDIA's management library shows an engine its own GPU too.
#include <gtest/gtest.h>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

std::vector<std::string> arguments() {
  return {program("management"), helper_library("nvidia-ml")};
}

TEST(Management, ShowsWhatTheEngineAskedForItself) {
  const auto alone = run_program(arguments());
  ASSERT_EQ(alone.status, 0) << alone.err;
  EXPECT_EQ(value_of(alone.out, "second"), "4294967296 1073741824 3221225472");

  const auto with = run_program(arguments(), elastic());
  ASSERT_EQ(with.status, 0) << with.err;
  const auto free_of = [&](const std::string& when) {
    unsigned long long total = 0;
    unsigned long long free = 0;
    unsigned long long used = 0;
    std::sscanf(value_of(with.out, when).c_str(), "%llu %llu %llu", &total, &free, &used);
    EXPECT_EQ(total, 4ULL << 30);
    EXPECT_EQ(free + used, total) << when;
    return free;
  };
  // Its total is another than cuMemGetInfo's; what is free does not jump when the pool is joined.
  EXPECT_EQ(free_of("first"), 1ULL << 30);
  EXPECT_EQ(free_of("first") - free_of("second"), 64ULL << 20);
  EXPECT_EQ(free_of("third"), free_of("first"));
  unsigned long long figures[4] = {};
  std::sscanf(value_of(with.out, "second_v2").c_str(), "%llu %llu %llu %llu", figures, figures + 1,
              figures + 2, figures + 3);
  EXPECT_EQ(figures[2], free_of("second"));
  EXPECT_EQ(figures[1] + figures[2] + figures[3], figures[0]);
}

TEST(Management, AnotherDeviceIsShownAsItIs) {
  auto words = arguments();
  words.emplace_back("some other GPU");
  const auto with = run_program(words, elastic());
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(value_of(with.out, "second"), "4294967296 1073741824 3221225472");
  EXPECT_EQ(with.err, "");
}

}  // namespace
}  // namespace kvcached::test
