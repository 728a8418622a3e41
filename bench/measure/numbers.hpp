// Times and what is said of many of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace kvcached::bench {

using Clock = std::chrono::steady_clock;

inline double seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}
inline double milliseconds(Clock::time_point since) { return 1e3 * seconds(since); }

// How long `work` took, in milliseconds.
template <class F>
double timed(F work) {
  const auto start = Clock::now();
  work();
  return milliseconds(start);
}

// The value at this share (0 to 1) of the sorted values; 0 of nothing.
inline double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto rank = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}
inline double median(const std::vector<double>& values) { return quantile(values, 0.5); }

}  // namespace kvcached::bench
