#include "bench/engine/trace.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <stdexcept>

namespace kvcached::engine {
namespace {

constexpr TraceSettings kSettings{0.5, 1000};

TEST(Trace, CountsStepsFromTheFirstLine) {
  std::istringstream lines(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n"
      "2023-11-16 23:59:59.5000000,374,44\n"
      "2023-11-16 23:59:59.9000000,10,5\n"
      "2023-11-17 00:00:01.1000000,396,109\r\n");
  const std::vector<Request> requests = read_trace(lines, kSettings);
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[0].arrival, 0U);
  EXPECT_EQ(requests[1].arrival, 0U);
  EXPECT_EQ(requests[2].arrival, 3U);
  EXPECT_EQ(requests[2].number, 2U);
  EXPECT_EQ(requests[2].prompt, 396U);
  EXPECT_EQ(requests[2].generate, 109U);
}

TEST(Trace, CutsWhatIsTooLong) {
  std::istringstream lines(
      "heading\n"
      "2023-11-16 18:15:46.0,5000,100\n"
      "2023-11-16 18:15:46.0,5000,3000\n"
      "2023-11-16 18:15:46.0,0,0\n");
  const std::vector<Request> requests = read_trace(lines, kSettings);
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[0].prompt, 900U);
  EXPECT_EQ(requests[0].generate, 100U);
  EXPECT_EQ(requests[1].prompt + requests[1].generate, 1000U);
  EXPECT_EQ(requests[2].prompt, 1U);
  EXPECT_EQ(requests[2].generate, 1U);
}

TEST(Trace, NamesTheMalformedLine) {
  for (const char* bad : {"", "2023-11-16 18:15:46.0,12", "2023-13-16 18:15:46.0,1,2",
                          "2023-11-16 18:15:46.0,1,2,3", "yesterday,1,2"}) {
    std::istringstream lines(std::string("heading\n2023-11-16 18:15:46.0,1,2\n") + bad + "\n");
    try {
      read_trace(lines, kSettings);
      ADD_FAILURE() << bad;
    } catch (const std::runtime_error& e) {
      EXPECT_NE(std::string(e.what()).find("line 3"), std::string::npos) << e.what();
    }
  }
}

TEST(Trace, NamesTheMissingFile) {
  EXPECT_THROW(read_trace("/nonexistent/trace.csv", kSettings), std::runtime_error);
}

}  // namespace
}  // namespace kvcached::engine
