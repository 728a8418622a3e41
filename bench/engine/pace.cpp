#include "bench/engine/pace.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>

namespace kvcached::engine {
namespace {

volatile std::sig_atomic_t terminate = 0;

void on_terminate(int /*signal*/) { terminate = 1; }

}  // namespace

Pace::Pace(bool lockstep, std::uint32_t step_ms)
    : lockstep_(lockstep), step_(step_ms), start_(std::chrono::steady_clock::now()) {
  struct sigaction action {};
  action.sa_handler = on_terminate;  // no SA_RESTART: a wait ends at once
  sigaction(SIGTERM, &action, nullptr);
}

bool Pace::interrupted() { return terminate != 0; }

bool Pace::next() {
  if (interrupted()) {
    return false;
  }
  if (lockstep_) {
    return wait_for_byte();
  }
  if (steps_ == 0) {
    start_ = std::chrono::steady_clock::now();
  }
  return wait_for_time();
}

bool Pace::wait_for_byte() {
  // With a timeout, for a signal that comes between the test and the wait.
  while (!interrupted()) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, 200) > 0) {
      char byte = 0;
      return read(STDIN_FILENO, &byte, 1) == 1;
    }
  }
  return false;
}

bool Pace::wait_for_time() {
  using std::chrono::milliseconds;
  const auto due = start_ + step_ * steps_;
  ++steps_;
  for (;;) {
    const auto now = std::chrono::steady_clock::now();
    if (interrupted()) {
      return false;
    }
    if (now >= due) {
      return true;
    }
    const auto rest = std::min(std::chrono::duration_cast<std::chrono::nanoseconds>(due - now),
                               std::chrono::nanoseconds(milliseconds(200)));
    const timespec time{0, static_cast<long>(rest.count())};
    nanosleep(&time, nullptr);
  }
}

double Pace::lag_ms() const {
  if (lockstep_ || step_.count() == 0 || steps_ == 0) {
    return 0;
  }
  const std::chrono::duration<double, std::milli> late =
      std::chrono::steady_clock::now() - (start_ + step_ * (steps_ - 1));
  return std::max(0.0, late.count());
}

}  // namespace kvcached::engine
