// The verbs of the command. Each returns the exit code: 0, or 2 with one line on standard error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvcached::tools {

inline constexpr int kBadUse = 2;

// Starts `arguments`, "[flags] [--] command…", with the library in front. Returns only on failure:
// 2, or as a shell does, 127 when the command is not found and 126 when it cannot be run.
int run(const std::vector<std::string>& arguments);

struct StatOptions {
  std::string directory;  // empty: as the settings say
  bool json = false;
};
int stat(const StatOptions& options);

int help_settings();
int version();

// Prints "kvcached: …" as one line on standard error and returns kBadUse.
int complain(std::string_view line);

}  // namespace kvcached::tools
