#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kvcached::demo {

using Environment = std::map<std::string, std::string>;

/// From now on SIGINT and SIGTERM only set `interrupted`, so that the caller can put things away; a
/// child that is gone is told by its answer, not by SIGPIPE.
void catch_signals();
bool interrupted();

/// This process's own.
Environment current_environment();

/// A program with pipes to its standard input and output; its standard error goes to a file. It is
/// killed with the object. Not copied, not moved.
class Child {
 public:
  /// Throws std::runtime_error.
  Child(const std::vector<std::string>& command, const Environment& environment, std::string log);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// False when it no longer reads.
  bool send(char byte) const;
  void end_input();
  /// The next line, without its end; none at the end of its output or after `patience`.
  std::optional<std::string> line(std::chrono::milliseconds patience);
  /// Waits for its end. The exit code, or 128 + the signal that ended it.
  int wait();

  [[nodiscard]] const std::string& log() const { return log_; }

 private:
  std::string log_;
  std::string buffer_;
  pid_t process_ = -1;
  int input_ = -1;
  int output_ = -1;
};

}  // namespace kvcached::demo
