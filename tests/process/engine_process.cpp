#include "tests/process/engine_process.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

extern char** environ;

namespace kvcached::test {

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string contents(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Sixty requests in ten seconds of trace time: prompts of a few hundred tokens, short answers.
std::string write_trace(const std::string& file) {
  std::ofstream out(file);
  out << "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  for (int i = 0; i < 60; ++i)
    out << "2024-01-01 00:00:" << (i / 6 < 10 ? "0" : "") << i / 6 << '.' << i % 6 << "000000,"
        << 100 + i * 137 % 1900 << ',' << 20 + i * 53 % 180 << '\n';
  return file;
}

}  // namespace

std::string build_folder() { return variable("KVCACHED_BUILD"); }

EngineProcess::EngineProcess(const std::string& name, const std::vector<std::string>& flags,
                             const Environment& variables) {
  static int count = 0;
  const std::string stem = std::filesystem::temp_directory_path().string() + "/engine-" +
                           std::to_string(getpid()) + "-" + std::to_string(count++);
  output_file_ = stem + ".out";
  error_file_ = stem + ".err";
  std::vector<std::string> words = {build_folder() + "/engine",
                                    "--name",
                                    name,
                                    "--trace",
                                    write_trace(stem + ".csv"),
                                    "--elastic-bytes",
                                    "2GiB",
                                    "--kv-bytes",
                                    "256MiB",
                                    "--report-every",
                                    "1"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);

  Environment all = variables;
  all.try_emplace("LD_PRELOAD", build_folder() + "/libkvcached.so");
  all.try_emplace("KVCACHED_NAME", name);
  std::vector<std::string> lines;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string line = *e;
    if (!all.contains(line.substr(0, line.find('=')))) lines.push_back(line);
  }
  for (const auto& [key, value] : all) lines.push_back(key + "=" + value);
  std::vector<char*> env;
  for (std::string& l : lines) env.push_back(l.data());
  env.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, output_file_.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, error_file_.c_str(), O_WRONLY | O_CREAT, 0600);
  EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), env.data()), 0) << argv[0];
  posix_spawn_file_actions_destroy(&actions);
}

EngineProcess::~EngineProcess() {
  if (running()) {
    kill(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

bool EngineProcess::running() {
  if (status_ || pid_ <= 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return false;
}

void EngineProcess::kill(int signal) const { ::kill(pid_, signal); }

int EngineProcess::wait() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (running()) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "the engine does not end\n" << errors();
      kill(SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return status_.value_or(-1);
}

std::string EngineProcess::output() const { return contents(output_file_); }
std::string EngineProcess::errors() const { return contents(error_file_); }

std::int64_t EngineProcess::figure(const std::string& event, const std::string& name) const {
  std::istringstream lines(output());
  std::int64_t last = -1;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.value("event", "") == event && json.contains(name))
      last = json[name].get<std::int64_t>();
  }
  return last;
}

std::optional<ledger::Snapshot> pool_in(const std::string& folder) {
  std::vector<std::string> complaints;
  auto pools = ledger::read_pools(folder, complaints);
  if (pools.size() != 1) return std::nullopt;
  return std::move(pools.front());
}

bool eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < 2000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return holds();
}

}  // namespace kvcached::test
