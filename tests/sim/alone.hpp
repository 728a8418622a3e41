#pragma once

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "tests/folder.hpp"
#include "tests/gpu/driver_facts.hpp"

// Tests of the simulator whose settings differ from the surrounding ones run in a process of their
// own: the settings are read once.
namespace sim_test {

using kvcached::test::Folder;

using Environment = std::map<std::string, std::string>;

/// Sets variables for the processes that are started while it lives.
class Settings {
 public:
  explicit Settings(const Environment& wanted) {
    for (const auto& [name, value] : wanted) {
      const char* const before = std::getenv(name.c_str());
      before_[name] = before == nullptr ? std::string() : std::string(before);
      setenv(name.c_str(), value.c_str(), 1);
    }
  }
  ~Settings() {
    for (const auto& [name, value] : before_) {
      value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
    }
  }
  Settings(const Settings&) = delete;
  Settings& operator=(const Settings&) = delete;

 private:
  Environment before_;
};

/// Runs a test that is switched off otherwise, with these settings; true if it passed.
inline bool passes_alone(const std::string& test, const Environment& wanted) {
  const Settings settings(wanted);
  return driver_facts::run_alone("Alone.DISABLED_" + test) == 0;
}

}  // namespace sim_test
