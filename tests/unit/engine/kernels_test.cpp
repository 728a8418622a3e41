// The kernels' source, compiled for the host as the simulated GPU has it.
#include "bench/engine/kernels.inl"

#include <gtest/gtest.h>

#include <vector>

namespace kvcached::engine {
namespace {

constexpr std::uint32_t kBlockTokens = 4;
constexpr std::uint32_t kRowWords = 8;
constexpr std::uint32_t kBlocks = 6;

class Kernels : public testing::Test {
 protected:
  void write(const Span& span, std::uint32_t number = 0) {
    write_span(layer(number), span, tables_.data());
  }
  Counters check(const Span& span, std::uint32_t number = 0) {
    Counters counters{};
    check_span(layer(number), span, tables_.data(), &counters);
    return counters;
  }
  Layer layer(std::uint32_t number) {
    return {keys_.data(), values_.data(), number, kBlockTokens, kRowWords};
  }
  static std::size_t word_of(std::uint32_t block, std::uint32_t position) {
    return (std::size_t{block} * kBlockTokens + position % kBlockTokens) * kRowWords;
  }

  std::vector<std::uint32_t> keys_ = std::vector<std::uint32_t>(kBlocks * kBlockTokens * kRowWords);
  std::vector<std::uint32_t> values_ = keys_;
  std::vector<std::uint32_t> tables_{9, 5, 0, 3};  // a request's table begins at 1
};

constexpr Span kWhole{77, 0, 11, 1, 0};

TEST_F(Kernels, ReadWhatTheyWrote) {
  write(kWhole);
  const Counters counters = check(kWhole);
  EXPECT_EQ(counters.rows_checked, 22U);
  EXPECT_EQ(counters.rows_wrong, 0U);
}

TEST_F(Kernels, WriteOnlyTheirTokens) {
  write({77, 5, 2, 1, 0});
  std::vector<std::uint32_t> zero(keys_.size());
  EXPECT_NE(keys_, zero);
  for (const std::uint32_t position : {5U, 6U}) {
    for (std::uint32_t i = 0; i < kRowWords; ++i) {
      keys_[word_of(0, position) + i] = 0;
      values_[word_of(0, position) + i] = 0;
    }
  }
  EXPECT_EQ(keys_, zero);
  EXPECT_EQ(values_, zero);
}

TEST_F(Kernels, FindASingleWrongBitAndSayWhere) {
  write(kWhole, 3);
  for (std::uint32_t i = 0; i < kRowWords; ++i) {
    std::uint32_t& word = values_[word_of(3, 9) + i];
    word ^= 1U << i;
    const Counters counters = check(kWhole, 3);
    word ^= 1U << i;
    EXPECT_EQ(counters.rows_wrong, 1U) << i;
    EXPECT_EQ(counters.wrong_seed, 77U);
    EXPECT_EQ(counters.wrong_layer, 3U);
    EXPECT_EQ(counters.wrong_value, 1U);
    EXPECT_EQ(counters.wrong_position, 9U);
    EXPECT_EQ(counters.wrong_block, 3U);
  }
}

TEST_F(Kernels, TellApartRequestsLayersPositionsKeysAndValues) {
  write(kWhole);
  Span other = kWhole;
  other.seed = 78;
  EXPECT_EQ(check(other).rows_wrong, 22U);
  EXPECT_EQ(check(kWhole, 1).rows_wrong, 22U);
  std::swap(keys_, values_);
  EXPECT_EQ(check(kWhole).rows_wrong, 22U);
  std::swap(keys_, values_);
  std::swap(tables_[1], tables_[2]);  // eight tokens in foreign blocks, three in their own
  EXPECT_EQ(check(kWhole).rows_wrong, 16U);
}

TEST_F(Kernels, FindAZeroedPage) {
  write(kWhole);
  std::fill(keys_.begin(), keys_.end(), 0);
  EXPECT_EQ(check(kWhole).rows_wrong, 11U);
}

}  // namespace
}  // namespace kvcached::engine
