#include "tests/cli/command.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcached::test {
namespace {

void redirect(const std::string& path, int descriptor) {
  const int opened = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (opened < 0 || dup2(opened, descriptor) < 0) _exit(125);
  close(opened);
}

}  // namespace

std::string build_directory() {
  const char* build = std::getenv("KVCACHED_BUILD");
  return build != nullptr ? build : "build";
}

Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                    const Variables& variables) {
  const Folder folder;
  const std::string out = folder / "out";
  const std::string err = folder / "err";
  std::vector<std::string> words{program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const pid_t child = fork();
  if (child == 0) {
    redirect("/dev/null", STDIN_FILENO);
    redirect(out, STDOUT_FILENO);
    redirect(err, STDERR_FILENO);
    for (const auto& [name, value] : variables) {
      if (value.empty()) {
        unsetenv(name.c_str());
      } else {
        setenv(name.c_str(), value.c_str(), 1);
      }
    }
    execv(program.c_str(), argv.data());
    _exit(125);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) {
    throw std::runtime_error("cannot run " + program);
  }
  Outcome outcome;
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = read_file(out);
  outcome.err = read_file(err);
  return outcome;
}

Outcome kvcached(const std::vector<std::string>& arguments, const Variables& variables) {
  return run_program(build_directory() + "/kvcached", arguments, variables);
}

Outcome in_shell(const std::string& script, Variables variables) {
  variables["kvcached"] = build_directory() + "/kvcached";
  return run_program("/bin/sh", {"-c", script}, variables);
}

void expect_line(const Outcome& outcome, int status, const std::string& part) {
  EXPECT_EQ(outcome.status, status) << outcome.err;
  EXPECT_THAT(outcome.out, testing::IsEmpty());
  EXPECT_THAT(outcome.err, testing::StartsWith("kvcached: "));
  EXPECT_THAT(outcome.err, testing::HasSubstr(part));
  EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
}

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace kvcached::test
