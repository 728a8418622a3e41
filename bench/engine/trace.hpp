#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace kvcached::engine {

/// One request of a trace. Lengths are tokens; both are at least 1.
struct Request {
  std::uint32_t number;   // its place in the trace
  std::uint64_t arrival;  // engine step
  std::uint32_t prompt;
  std::uint32_t generate;
};

struct TraceSettings {
  double step_seconds;       // how much of the trace's time passes in one engine step
  std::uint32_t max_tokens;  // a longer prompt is cut so that prompt and answer fit; the answer too
};

/// Reads "TIMESTAMP,ContextTokens,GeneratedTokens" lines below a heading, in order of time; steps
/// count from the first line's time. Throws std::runtime_error naming the line that is malformed.
std::vector<Request> read_trace(std::istream& lines, const TraceSettings& settings);
std::vector<Request> read_trace(const std::string& path, const TraceSettings& settings);

}  // namespace kvcached::engine
