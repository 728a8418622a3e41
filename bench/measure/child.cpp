#include "bench/measure/child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "bench/measure/numbers.hpp"

extern char** environ;

namespace kvcached::bench {
namespace {

std::vector<std::string> changed_environment(const Changes& changes) {
  std::vector<std::string> lines;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string line = *e;
    if (!changes.contains(line.substr(0, line.find('=')))) lines.push_back(line);
  }
  for (const auto& [key, value] : changes) {
    if (!value.empty()) lines.push_back(key + "=" + value);
  }
  return lines;
}

std::vector<char*> pointers(std::vector<std::string>& lines) {
  std::vector<char*> out;
  for (std::string& line : lines) out.push_back(line.data());
  out.push_back(nullptr);
  return out;
}

std::runtime_error system_error(const std::string& what, int error) {
  return std::runtime_error(what + ": " + std::strerror(error));
}

}  // namespace

std::string own_file() { return std::filesystem::read_symlink("/proc/self/exe"); }

std::string build_folder() { return std::filesystem::path(own_file()).parent_path().parent_path(); }

std::string library() {
  const std::string path = build_folder() + "/libkvcached.so";
  if (!std::filesystem::exists(path)) throw std::runtime_error(path + ": missing");
  return path;
}

Folder::Folder() {
  for (const std::string& root :
       {std::string("/dev/shm"), std::filesystem::temp_directory_path().string()}) {
    path_ = root + "/kvcached-bench-XXXXXX";
    if (::mkdtemp(path_.data()) != nullptr) return;
  }
  throw system_error(path_, errno);
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Child::Child(std::string name, const std::vector<std::string>& command, const Changes& changes)
    : name_(std::move(name)) {
  std::signal(SIGPIPE, SIG_IGN);  // a child that is gone is told by its answer
  std::array<int, 2> in{-1, -1};
  std::array<int, 2> out{-1, -1};
  if (pipe2(in.data(), O_CLOEXEC) != 0 || pipe2(out.data(), O_CLOEXEC) != 0)
    throw system_error(name_ + ": pipe", errno);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  std::vector<std::string> words = command;
  std::vector<std::string> variables = changed_environment(changes);
  const int error = posix_spawn(&pid_, words[0].c_str(), &actions, nullptr, pointers(words).data(),
                                pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
  if (error != 0) {
    ::close(to_);
    ::close(from_);
    throw system_error(name_ + ": " + words[0], error);
  }
}

Child::~Child() {
  end_input();
  ::close(from_);
  if (ended()) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Child::end_input() {
  if (to_ >= 0) ::close(to_);
  to_ = -1;
}

std::optional<int> Child::ended() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_)
    status_ = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return status_;
}

void Child::say(const std::string& line) const {
  const std::string text = line + "\n";
  if (::write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw std::runtime_error(name_ + ": ended before \"" + line + "\"");
}

std::string Child::hear(double patience_s) {
  const auto start = Clock::now();
  for (;;) {
    const std::size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      if (line.starts_with("error ")) throw std::runtime_error(name_ + ": " + line.substr(6));
      return line;
    }
    const double left = patience_s - seconds(start);
    if (left <= 0) throw std::runtime_error(name_ + ": no answer in time");
    pollfd ready{from_, POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(left * 1e3) + 1) <= 0) continue;
    std::array<char, 4096> bytes{};
    const ssize_t n = ::read(from_, bytes.data(), bytes.size());
    if (n <= 0) throw std::runtime_error(name_ + ": ended instead of answering");
    buffer_.append(bytes.data(), static_cast<std::size_t>(n));
  }
}

std::string Child::ask(const std::string& line, double patience_s) {
  say(line);
  try {
    return hear(patience_s);
  } catch (const std::runtime_error& e) {
    throw std::runtime_error(std::string(e.what()) + " (asked \"" + line + "\")");
  }
}

double Child::number(const std::string& line, double patience_s) {
  const std::string answer = ask(line, patience_s);
  return std::stod(answer.substr(answer.rfind(' ') + 1));
}

}  // namespace kvcached::bench
