// The verbs of the command. Each returns the exit code: 0, or with one line on standard error 2 for
// bad use, and 1 where what was asked for was understood and could not be done.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/clock.hpp"

namespace kvcached::tools {

inline constexpr int kRefused = 1;
inline constexpr int kBadUse = 2;

// Starts `arguments`, "[flags] [--] command…", with the library in front. Returns only on failure:
// 2, or as a shell does, 127 when the command is not found and 126 when it cannot be run.
int run(const std::vector<std::string>& arguments);

struct StatOptions {
  std::optional<std::string> directory;  // none: as the settings say
  std::string gpu;  // the beginning of a pool's name, as it is shown; empty: all
  bool json = false;
  bool history = false;           // the last ten minutes instead of now
  std::optional<Duration> every;  // shows it again and again, until it cannot be written
};
int stat(const StatOptions& options);

struct ControlOptions {
  std::optional<std::string> directory;  // none: as the settings say
  std::string gpu;  // the beginning of a pool's name, as stat shows it; empty: the only one
  Duration wait = std::chrono::seconds(2);  // for what the members then do
};
// A tenant's limits; `changes` as "min=8GiB". Prints what is in force and what it came to.
int set(const std::string& tenant, const std::vector<std::string>& changes,
        const ControlOptions& options);
// A tenant gives back what it holds idle.
int trim(const std::string& tenant, const ControlOptions& options);
// The pool's size.
int limit(const std::string& size, const ControlOptions& options);

int help_settings();
int version();

// Prints "kvcached: …" as one line on standard error, if it can, and returns kBadUse.
int complain(std::string_view line) noexcept;

// Writes out what was printed. `code`, or kRefused after a complaint where it cannot be written.
int flush(int code);

}  // namespace kvcached::tools
