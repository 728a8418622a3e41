#pragma once

#include <chrono>
#include <cstdint>

namespace kvcached::engine {

/// Says when the next step may start. One per process: it takes SIGTERM, which ends the run early.
class Pace {
 public:
  /// `lockstep`: one byte on standard input for each step, its end ends the run. Otherwise step n
  /// starts no sooner than n * `step_ms` after the first one.
  Pace(bool lockstep, std::uint32_t step_ms);

  /// False when the run is to end.
  bool next();
  /// SIGTERM has come.
  [[nodiscard]] static bool interrupted();
  /// How far the present step is behind its time, in milliseconds; 0 where it has none.
  [[nodiscard]] double lag_ms() const;

 private:
  [[nodiscard]] static bool wait_for_byte();
  [[nodiscard]] bool wait_for_time();

  bool lockstep_;
  std::chrono::milliseconds step_;
  std::uint64_t steps_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace kvcached::engine
