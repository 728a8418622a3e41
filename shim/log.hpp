// The log: single lines on standard error or in a file, never on standard output. The lowest part
// of the shim: everything in it may write a line.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "policy/settings.hpp"

namespace kvcached {

// Chooses level and destination; before it, warnings go to standard error. `file` empty: standard
// error. A file that cannot be opened is one warning there.
void log_start(LogLevel level, const char* file) noexcept;

bool log_wants(LogLevel level) noexcept;

// Writes "kvcached[pid]: text\n" in one write call. No allocation, no stdio, thread-safe.
void log_text(LogLevel level, std::string_view text) noexcept;

template <class... Args>
void log_line(LogLevel level, fmt::format_string<Args...> format, Args&&... args) noexcept {
  if (!log_wants(level)) return;
  char text[512];
  try {
    const auto end = fmt::format_to_n(text, sizeof text, format, std::forward<Args>(args)...);
    log_text(level, {text, end.size < sizeof text ? end.size : sizeof text});
  } catch (...) {
    log_text(level, "a log line could not be formatted");
  }
}

template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) noexcept {
  log_line(LogLevel::warning, format, std::forward<Args>(args)...);
}
template <class... Args>
void inform(fmt::format_string<Args...> format, Args&&... args) noexcept {
  log_line(LogLevel::info, format, std::forward<Args>(args)...);
}

}  // namespace kvcached
