#include "tests/sim/faults.hpp"

#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/sim/settings.hpp"

namespace sim {
namespace {

/// One line: `cuMemCreate nth=3 error=2`.
struct Rule {
  std::string call;
  std::uint64_t nth = 0;     // this call alone, counted since the rule was read
  std::uint64_t every = 0;   // each n-th
  double chance = 0;         // each with this probability
  std::uint64_t random = 1;  // state of the generator
  CUresult error = CUDA_ERROR_UNKNOWN;
  unsigned delay = 0;  // milliseconds
  std::uint64_t calls = 0;
};

/// What becomes of one call.
struct Fate {
  CUresult error = CUDA_SUCCESS;
  unsigned delay = 0;
};

/// A number in [0, 1); a sequence that depends on the seed alone.
double next(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  std::uint64_t z = state;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return static_cast<double>((z ^ (z >> 31U)) >> 11U) * 0x1p-53;
}

bool parse(const std::string& line, Rule& out) {
  std::istringstream words(line.substr(0, line.find('#')));
  if (!(words >> out.call)) return false;
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) return false;
    const std::string key = word.substr(0, equals);
    const char* const value = word.c_str() + equals + 1;
    if (key == "nth") out.nth = std::strtoull(value, nullptr, 10);
    if (key == "every") out.every = std::strtoull(value, nullptr, 10);
    if (key == "chance") out.chance = std::strtod(value, nullptr);
    if (key == "seed") out.random = std::strtoull(value, nullptr, 10);
    if (key == "delay") out.delay = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    if (key == "error") out.error = static_cast<CUresult>(std::strtol(value, nullptr, 10));
  }
  return true;
}

/// cuMemAlloc_v2 is cuMemAlloc, cuStreamQuery_ptsz is cuStreamQuery.
bool same_call(const std::string& rule, const char* name) {
  if (std::strncmp(name, rule.c_str(), rule.size()) != 0) return false;
  const char* const rest = name + rule.size();
  return *rest == '\0' || std::strncmp(rest, "_v", 2) == 0 || std::strncmp(rest, "_pt", 3) == 0;
}

class Faults {
 public:
  Fate next_for(const char* name) {
    const std::lock_guard lock(mutex_);
    read_if_changed();
    Fate fate;
    for (Rule& rule : rules_) {
      if (!same_call(rule.call, name)) continue;
      ++rule.calls;
      const bool now = rule.calls == rule.nth ||
                       (rule.every != 0 && rule.calls % rule.every == 0) ||
                       (rule.chance > 0 && next(rule.random) < rule.chance);
      if (!now) continue;
      if (fate.error == CUDA_SUCCESS) fate.error = rule.error;
      fate.delay += rule.delay;
    }
    return fate;
  }

 private:
  void read_if_changed() {
    struct stat info {};
    if (stat(settings().faults.c_str(), &info) != 0) {
      rules_.clear();
      seen_ = {};
      return;
    }
    const Version now{info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_size, info.st_ino};
    if (now == seen_) return;
    seen_ = now;
    rules_.clear();
    std::ifstream file(settings().faults);
    for (std::string line; std::getline(file, line);) {
      if (Rule rule; parse(line, rule)) rules_.push_back(rule);
    }
  }

  struct Version {
    std::int64_t seconds = 0;
    std::int64_t nanoseconds = 0;
    std::int64_t bytes = 0;
    std::uint64_t inode = 0;
    bool operator==(const Version&) const = default;
  };
  std::mutex mutex_;
  Version seen_;
  std::vector<Rule> rules_;
};

}  // namespace

CUresult injected_fault(const char* name) {
  if (settings().faults.empty()) return CUDA_SUCCESS;
  static Faults& faults = *new Faults;
  const Fate fate = faults.next_for(name);
  if (fate.delay != 0) std::this_thread::sleep_for(std::chrono::milliseconds(fate.delay));
  return fate.error;
}

}  // namespace sim
