// What users write to change a pool in use.
#include "policy/changes.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvcached {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

std::string parse(std::vector<std::string> words, LimitChange& change) {
  return parse_changes(words, change);
}

TEST(Changes, EachKeyOnItsOwnAndTogether) {
  LimitChange change;
  EXPECT_EQ(parse({"min=2GiB"}, change), "");
  EXPECT_EQ(change.min->bytes, Bytes(2ULL << 30));
  EXPECT_FALSE(change.max || change.weight);
  EXPECT_EQ(parse({"weight=300", "max=40%", "min=0"}, change), "");
  EXPECT_EQ(change.min->bytes, Bytes(0));
  EXPECT_TRUE(change.max->is_share);
  EXPECT_EQ(change.weight, 300U);
}

TEST(Changes, BadOnesNameTheWordAndWhatIsAllowed) {
  LimitChange change;
  EXPECT_EQ(parse({}, change), "nothing to change; write min=SIZE, max=SIZE or weight=NUMBER");
  for (const char* word : {"min", "minimum=2GiB", "=2GiB", "", "MIN=2GiB", "max:2GiB"}) {
    EXPECT_EQ(parse({word}, change),
              std::string(word) + ": not a change; write min=SIZE, max=SIZE or weight=NUMBER");
  }
  EXPECT_EQ(parse({"min=banana"}, change),
            "min=banana: not 0 or a size of at least 2MiB; write e.g. min=8GiB or min=40%");
  EXPECT_THAT(parse({"min=8"}, change), HasSubstr("min=8: not 0 or a size of at least 2MiB"));
  for (const std::string size : {"0", "0%", "8"}) {
    EXPECT_EQ(parse({"max=" + size}, change),
              "max=" + size + ": not a size of at least 2MiB; write e.g. max=8GiB or max=40%");
  }
  for (const char* weight : {"weight=0", "weight=10001", "weight=-1", "weight=1.5", "weight="}) {
    EXPECT_THAT(parse({weight}, change), HasSubstr("not a weight; write a whole number from 1"));
  }
  EXPECT_EQ(parse({"min=1GiB", "max=2GiB", "min=3GiB"}, change), "min=3GiB: min is given twice");
  EXPECT_EQ(parse({"a\nb\x1b"}, change).substr(0, 5), "a?b?:");
}

TEST(Changes, Durations) {
  EXPECT_EQ(parse_duration("0"), Duration::zero());
  EXPECT_EQ(parse_duration("0s"), Duration::zero());
  EXPECT_EQ(parse_duration("2s"), milliseconds(2000));
  EXPECT_EQ(parse_duration("0.25s"), milliseconds(250));
  EXPECT_EQ(parse_duration("1500ms"), milliseconds(1500));
  EXPECT_EQ(parse_duration("3600s"), milliseconds(3'600'000));
  for (const char* bad : {"", "2", "s", "ms", ".s", "1.s", ".5s", "-1s", "1 s", "1m", "3601s",
                          "1.2.3s", "99999999999s", "1e3s", "0x1s"}) {
    EXPECT_EQ(parse_duration(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace kvcached
