// A runtime that finds the driver as NVIDIA's does, but runs on any: its memory becomes elastic,
// and behaves.
#include <gtest/gtest.h>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

using Words = std::vector<std::string>;

class MiniRuntime : public testing::TestWithParam<std::pair<const char*, bool>> {};

TEST_P(MiniRuntime, AllocatesElasticMemory) {
  const std::string build = GetParam().first;
  Words words{program("miniruntime_" + build)};
  if (build == "shared") words.push_back(helper_library("miniruntime"));
  if (GetParam().second) words.emplace_back("per-thread");
  const std::string before = "malloc 0\nmemset 0\nmemcpy 0\nlast 7\nelastic ";
  const std::string after = "\nfree 0\nfree again 1\n";
  const auto alone = run_program(words);
  EXPECT_EQ(alone.out, before + "0" + after) << alone.err;
  const auto with = run_program(words, elastic());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, before + "1" + after);
}

INSTANTIATE_TEST_SUITE_P(Builds, MiniRuntime,
                         testing::Values(std::pair{"shared", false}, std::pair{"shared", true},
                                         std::pair{"static", false}, std::pair{"static", true}),
                         [](const auto& build) {
                           return std::string(build.param.first) +
                                  (build.param.second ? "_per_thread" : "_default");
                         });

}  // namespace
}  // namespace kvcached::test
