#include "bench/measure/processors.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace kvcached::bench {
namespace {

std::vector<std::size_t> allowed() {
  std::vector<std::size_t> found;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return found;
  for (std::size_t i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) found.push_back(i);
  }
  return found;
}

bool run_on(pid_t thread, std::size_t processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  return sched_setaffinity(thread, sizeof set, &set) == 0;
}

}  // namespace

bool run_aside(std::initializer_list<std::string_view> names) {
  static const std::vector<std::size_t> processors = allowed();
  if (processors.size() < 2) return false;
  // Not the next one, which may be the other half of the caller's.
  const std::size_t aside = processors[std::min<std::size_t>(2, processors.size() - 1)];
  std::size_t found = 0;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(thread.path() / "comm"), name);
    if (std::find(names.begin(), names.end(), name) == names.end()) continue;
    if (run_on(std::stoi(thread.path().filename()), aside)) ++found;
  }
  return found == names.size() && run_on(gettid(), processors[0]);
}

}  // namespace kvcached::bench
