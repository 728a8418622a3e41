// The program `tenant` as a child process behind the preloaded library.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/process/engine_process.hpp"

extern char** environ;

namespace kvcached::test {

// Told by lines, answering by lines.
class Tenant {
 public:
  // `before`: a command that runs the program, and its arguments.
  Tenant(const std::string& name, EngineProcess::Environment variables,
         std::vector<std::string> before = {}) {
    variables["LD_PRELOAD"] = build_folder() + "/libkvcached.so";
    variables["KVCACHED_NAME"] = name;
    std::vector<std::string> lines;
    for (char** e = environ; *e != nullptr; ++e) {
      const std::string line = *e;
      if (!variables.contains(line.substr(0, line.find('=')))) lines.push_back(line);
    }
    for (const auto& [key, value] : variables) lines.push_back(key + "=" + value);
    std::vector<char*> env;
    for (std::string& line : lines) env.push_back(line.data());
    env.push_back(nullptr);
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    EXPECT_EQ(pipe2(in.data(), O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(out.data(), O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    before.push_back(build_folder() + "/tests/programs/tenant");
    std::vector<char*> argv;
    for (std::string& word : before) argv.push_back(word.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), env.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    to_ = in[1];
    from_ = fdopen(out[0], "r");
    EXPECT_EQ(hear(), "here");
  }
  ~Tenant() {
    close(to_);
    fclose(from_);
    kill(SIGCONT);
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }
  Tenant(const Tenant&) = delete;
  Tenant& operator=(const Tenant&) = delete;

  void say(const std::string& line) const {
    const std::string text = line + "\n";
    EXPECT_EQ(write(to_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string hear() const {
    std::array<char, 256> line{};
    if (fgets(line.data(), line.size(), from_) == nullptr) return "";
    std::string text = line.data();
    return text.substr(0, text.find('\n'));
  }
  std::string ask(const std::string& line) const {
    say(line);
    return hear();
  }
  // The number in its answer.
  std::uint64_t number(const std::string& line) const {
    const std::string answer = ask(line);
    return std::stoull(answer.substr(answer.find(' ')));
  }
  pid_t pid() const { return pid_; }
  void kill(int signal) const { ::kill(pid_, signal); }
  void end() {
    kill(SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  int to_ = -1;
  FILE* from_ = nullptr;
};

// Tenants of one pool of 6,400 blocks of 128 KiB on a GPU of 1 GiB.
class TenantPool : public ::testing::Test {
 protected:
  EngineProcess::Environment environment(const std::string& key = {},
                                         const std::string& value = {}) const {
    EngineProcess::Environment e = {{"SIM_GPU_DIR", gpu_.path()},
                                    {"SIM_GPU_MEMORY", "1GiB"},
                                    {"KVCACHED_DIR", pool_.path()},
                                    {"KVCACHED_POOL", "800MiB"}};
    if (!key.empty()) e[key] = value;
    return e;
  }
  struct Answer {
    int status = -1;
    std::string text;  // both outputs
  };
  Answer kvcached(const std::string& words) const {
    Answer answer;
    const std::string command =
        build_folder() + "/kvcached " + words + " --dir " + pool_.path() + " 2>&1";
    FILE* const pipe = popen(command.c_str(), "r");
    std::array<char, 512> line{};
    while (fgets(line.data(), line.size(), pipe) != nullptr) answer.text += line.data();
    const int status = pclose(pipe);
    answer.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return answer;
  }
  Folder gpu_, pool_;
};

}  // namespace kvcached::test
