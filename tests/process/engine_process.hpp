// The example engine as a child process behind the preloaded library, for tests that kill it,
// starve it, or give it bad settings.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "policy/ledger/ledger.hpp"
#include "tests/folder.hpp"

namespace kvcached::test {

// Folder of the build under test.
std::string build_folder();

class EngineProcess {
 public:
  using Environment = std::map<std::string, std::string>;

  // Starts it with these flags, on top of a small model and a short trace, and these variables.
  EngineProcess(const std::string& name, const std::vector<std::string>& flags,
                const Environment& variables = {});
  ~EngineProcess();  // kills what still runs
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  void kill(int signal) const;
  // Waits for its end: the exit code, or minus the signal. A minute without an end fails the test.
  int wait();

  std::string output() const;  // standard output so far
  std::string errors() const;  // standard error so far: also the library's log
  // A number of its last line of this kind ("step", "summary"); none so far: -1.
  std::int64_t figure(const std::string& event, const std::string& name) const;

 private:
  std::string output_file_, error_file_;
  pid_t pid_ = -1;
  std::optional<int> status_;
};

// The only pool in the folder, if there is one that can be read.
std::optional<ledger::Snapshot> pool_in(const std::string& folder);

// Polls until it holds; false after 20 s.
bool eventually(const std::function<bool()>& holds);

}  // namespace kvcached::test
