// The words of `kvcached set` and its durations out of arbitrary text: every line of the input is a
// word.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "policy/changes.hpp"

namespace {

using namespace kvcached;

void require(bool holds) {
  if (!holds) std::abort();
}

bool printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

// Arbitrary text is seldom more than a bad word: now and then a word begins well.
std::string word_of(const std::string& line) {
  constexpr const char* kBegins[] = {"min=", "max=", "weight="};
  if (line.empty() || static_cast<unsigned char>(line[0]) % 4 == 0) return line;
  return kBegins[static_cast<unsigned char>(line[0]) % 3] + line.substr(1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    words.push_back(word_of(line));
    const std::optional<Duration> duration = parse_duration(line);
    require(!duration || (*duration >= Duration::zero() && *duration <= std::chrono::hours(1)));
    LimitChange alone;
    const std::string why = parse_changes(std::vector{words.back()}, alone);
    require(printable(why) && why.size() < 300);
    if (!why.empty()) continue;
    // One word, one value, in range.
    require(int{alone.min.has_value()} + int{alone.max.has_value()} +
                int{alone.weight.has_value()} ==
            1);
    require(!alone.weight || (*alone.weight >= 1 && *alone.weight <= 10'000));
    for (const auto& amount : {alone.min, alone.max}) {
      require(!amount || !amount->is_share || (amount->share >= 0 && amount->share <= 1));
    }
    require(!alone.max || alone.max->of(Bytes(80ULL << 30)) > Bytes());
    // The same twice is refused.
    LimitChange twice;
    require(!parse_changes(std::vector{words.back(), words.back()}, twice).empty());
  }
  LimitChange change;
  const std::string why = parse_changes(words, change);
  require(printable(why));
  require(!why.empty() || words.size() <= 3);
  return 0;
}
