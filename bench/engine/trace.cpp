#include "bench/engine/trace.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>
#include <stdexcept>

namespace kvcached::engine {
namespace {

struct Line {
  double seconds;
  std::uint32_t prompt;
  std::uint32_t generate;
};

std::optional<Line> parse(const std::string& text) {
  int year = 0;
  unsigned month = 0;
  unsigned day = 0;
  int hour = 0;
  int minute = 0;
  double second = 0;
  Line line{};
  char extra = 0;
  // "2023-11-16 18:17:03.9799600,4808,10"
  const int fields = std::sscanf(  // NOLINT(cert-err34-c): out of range only makes an odd request
      text.c_str(), "%4d-%2u-%2u %2d:%2d:%lf,%9u,%9u%c", &year, &month, &day, &hour, &minute,
      &second, &line.prompt, &line.generate, &extra);
  if (fields != 8 && !(fields == 9 && extra == '\r')) {
    return std::nullopt;
  }
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok()) {
    return std::nullopt;
  }
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  line.seconds = static_cast<double>(days) * 86400.0 + hour * 3600.0 + minute * 60.0 + second;
  return line;
}

}  // namespace

std::vector<Request> read_trace(std::istream& lines, const TraceSettings& settings) {
  std::vector<Request> requests;
  std::string text;
  std::getline(lines, text);  // the heading
  double first = 0;
  for (std::uint32_t number = 0; std::getline(lines, text); ++number) {
    const std::optional<Line> line = parse(text);
    if (!line) {
      throw std::runtime_error("trace line " + std::to_string(number + 2) +
                               ": expected TIMESTAMP,ContextTokens,GeneratedTokens: " + text);
    }
    if (number == 0) {
      first = line->seconds;
    }
    const double steps = std::max(0.0, (line->seconds - first) / settings.step_seconds);
    const std::uint32_t generate = std::clamp(line->generate, 1U, settings.max_tokens / 2);
    const std::uint32_t prompt = std::clamp(line->prompt, 1U, settings.max_tokens - generate);
    requests.push_back({number, static_cast<std::uint64_t>(steps), prompt, generate});
  }
  return requests;
}

std::vector<Request> read_trace(const std::string& path, const TraceSettings& settings) {
  std::ifstream file(path);
  if (!file) {
    throw std::runtime_error("cannot read trace " + path);
  }
  return read_trace(file, settings);
}

}  // namespace kvcached::engine
