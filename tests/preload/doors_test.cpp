// Every way in which a program reaches the driver leads through the library, and to the same
// answers as without it.
#include <gtest/gtest.h>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

using Words = std::vector<std::string>;

class Doors : public testing::TestWithParam<Words> {
 protected:
  static Words words() {
    Words all = GetParam();
    all[0] = program(all[0]);
    return all;
  }
};

std::string without_line(const std::string& output, const std::string& key) {
  std::string rest;
  for (const auto& line : lines_of(output)) {
    if (!line.starts_with(key + " ")) rest += line + "\n";
  }
  return rest;
}

TEST_P(Doors, ElasticMemoryAnswersAsPlainMemoryDoes) {
  const auto plain = run_program(words());
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(value_of(plain.out, "elastic"), "0");
  EXPECT_EQ(value_of(plain.out, "wrong_bytes"), "0");

  const auto with = run_program(words(), elastic());
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(value_of(with.out, "elastic"), "1");
  EXPECT_EQ(without_line(with.out, "elastic"), without_line(plain.out, "elastic"));
}

TEST_P(Doors, NothingIsElasticWithoutARule) {
  const auto plain = run_program(words());
  const auto with = run_program(words(), {{"LD_PRELOAD", library()}});
  EXPECT_EQ(with.status, 0);
  EXPECT_EQ(with.out, plain.out);
}

TEST_P(Doors, SwitchedOffIsOff) {
  auto off = elastic();
  off["KVCACHED_DISABLE"] = "1";
  const auto plain = run_program(words());
  const auto with = run_program(words(), off);
  EXPECT_EQ(with.status, 0);
  EXPECT_EQ(with.out, plain.out);
  EXPECT_EQ(with.err, "");
}

INSTANTIATE_TEST_SUITE_P(All, Doors,
                         testing::Values(Words{"linked"}, Words{"loaded", "handle"},
                                         Words{"loaded", "default"}, Words{"loaded", "self"},
                                         Words{"loaded", "handle", "per-thread"},
                                         Words{"asked", "1", "0"}, Words{"asked", "1", "2"},
                                         Words{"asked", "2", "0"}, Words{"asked", "2", "1"},
                                         Words{"asked", "2", "2"}),
                         [](const auto& words) {
                           std::string name;
                           for (const auto& word : words.param) {
                             for (const char c : word) name += c == '-' ? '_' : c;
                             name += '_';
                           }
                           name.pop_back();
                           return name;
                         });

TEST(Python, ReachesTheDriverThroughCtypesUninstrumented) {
  const Words words{"python3", source_folder() + "/tests/preload/programs/by_ctypes.py"};
  const auto plain = run_program(words);
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(value_of(plain.out, "elastic"), "0");
  EXPECT_EQ(value_of(plain.out, "last"), "7");
  const auto with = run_program(words, elastic());
  EXPECT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(value_of(with.out, "elastic"), "1");
  EXPECT_EQ(without_line(with.out, "elastic"), without_line(plain.out, "elastic"));
}

}  // namespace
}  // namespace kvcached::test
