#include "bench/demo/child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace kvcached::demo {
namespace {

volatile sig_atomic_t stop = 0;

void on_signal(int /*signal*/) { stop = 1; }

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
  }
  return ends;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (std::string& s : strings) {
    out.push_back(s.data());
  }
  out.push_back(nullptr);
  return out;
}

}  // namespace

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

bool interrupted() { return stop != 0; }

Environment current_environment() {
  Environment out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) {
      out[text.substr(0, equals)] = text.substr(equals + 1);
    }
  }
  return out;
}

Child::Child(const std::vector<std::string>& command, const Environment& environment,
             std::string log)
    : log_(std::move(log)) {
  std::vector<std::string> words = command;
  std::vector<std::string> settings;
  for (const auto& [name, value] : environment) {
    settings.push_back(name);
    settings.back().append("=").append(value);
  }
  const std::array<int, 2> in = make_pipe();
  const std::array<int, 2> out = make_pipe();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int error = posix_spawn(&process_, words.at(0).c_str(), &actions, nullptr,
                                pointers(words).data(), pointers(settings).data());
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  input_ = in[1];
  output_ = out[0];
  if (error != 0) {
    close(input_);
    close(output_);
    throw std::runtime_error(words.at(0) + ": " + std::strerror(error));
  }
}

Child::~Child() {
  end_input();
  close(output_);
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
}

bool Child::send(char byte) const { return write(input_, &byte, 1) == 1; }

void Child::end_input() {
  if (input_ >= 0) {
    close(std::exchange(input_, -1));
  }
}

std::optional<std::string> Child::line(std::chrono::milliseconds patience) {
  for (;;) {
    const std::size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string out = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return out;
    }
    pollfd output{output_, POLLIN, 0};
    const int ready = poll(&output, 1, static_cast<int>(patience.count()));
    if (ready < 0 && errno == EINTR && !interrupted()) {
      continue;
    }
    std::array<char, 65536> part{};
    const ssize_t bytes = ready > 0 ? read(output_, part.data(), part.size()) : 0;
    if (bytes <= 0) {
      return std::nullopt;
    }
    buffer_.append(part.data(), static_cast<std::size_t>(bytes));
  }
}

int Child::wait() {
  int status = 0;
  while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace kvcached::demo
