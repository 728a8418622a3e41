#include "shim/log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace kvcached {
namespace {

std::atomic<LogLevel> g_level{LogLevel::warning};
std::atomic<int> g_file{STDERR_FILENO};

}  // namespace

void log_start(LogLevel level, const char* file) noexcept {
  g_level.store(level, std::memory_order_relaxed);
  if (file == nullptr || *file == '\0') return;
  const int opened = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (opened < 0) {
    warn("KVCACHED_LOG_FILE={}: {}; the log stays on standard error", file, std::strerror(errno));
    return;
  }
  g_file.store(opened, std::memory_order_relaxed);
}

bool log_wants(LogLevel level) noexcept {
  return level != LogLevel::quiet && level <= g_level.load(std::memory_order_relaxed);
}

void log_text(LogLevel level, std::string_view text) noexcept {
  if (!log_wants(level)) return;
  const int saved = errno;
  char line[640];
  try {
    const auto end = fmt::format_to_n(line, sizeof line - 1, "kvcached[{}]: {}", getpid(), text);
    std::size_t size = end.size < sizeof line - 1 ? end.size : sizeof line - 1;
    line[size++] = '\n';
    // A log that cannot be written is no reason to disturb the engine.
    [[maybe_unused]] const auto written = write(g_file.load(std::memory_order_relaxed), line, size);
  } catch (...) {
    errno = saved;
    return;
  }
  errno = saved;
}

}  // namespace kvcached
