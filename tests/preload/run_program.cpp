#include "tests/preload/run_program.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

extern char** environ;

namespace kvcached::test {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string contents(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  for (auto& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

}  // namespace

Outcome run_program(const std::vector<std::string>& words, const Environment& variables) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string line = *entry;
    if (!variables.contains(line.substr(0, line.find('=')))) environment.push_back(line);
  }
  for (const auto& [name, value] : variables) {
    if (!value.empty()) environment.push_back(name + "=" + value);
  }
  static int count = 0;
  const std::string stem = std::filesystem::temp_directory_path().string() + "/program-" +
                           std::to_string(getpid()) + "-" + std::to_string(count++);
  const std::string out = stem + ".out";
  const std::string err = stem + ".err";

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kCreate = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), kCreate, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), kCreate, 0600);
  std::vector<std::string> copy = words;
  pid_t child = 0;
  const int failed = posix_spawnp(&child, words[0].c_str(), &actions, nullptr,
                                  pointers(copy).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  Outcome outcome;
  int state = 0;
  if (failed != 0 || waitpid(child, &state, 0) != child) {
    outcome.err = words[0] + " cannot be started";
    return outcome;
  }
  outcome.status = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  outcome.out = contents(out);
  outcome.err = contents(err);
  return outcome;
}

std::string build_folder() { return variable("KVCACHED_BUILD"); }
std::string source_folder() { return variable("KVCACHED_SOURCE"); }
std::string library() { return build_folder() + "/libkvcached.so"; }
std::string program(const std::string& name) { return build_folder() + "/tests/programs/" + name; }
std::string helper_library(const std::string& name) {
  return build_folder() + "/tests/libraries/lib" + name + ".so";
}

Environment elastic() { return {{"LD_PRELOAD", library()}, {"KVCACHED_MATCH", "size>=4MiB"}}; }

Environment on_small_gpu(Environment variables, const std::string& memory) {
  static int count = 0;
  const std::string folder = std::filesystem::temp_directory_path().string() + "/small-gpu-" +
                             std::to_string(getpid()) + "-" + std::to_string(count++);
  std::filesystem::create_directories(folder + "/pool");
  variables["SIM_GPU_DIR"] = folder;
  variables["SIM_GPU_MEMORY"] = memory;
  variables["KVCACHED_DIR"] = folder + "/pool";
  return variables;
}

std::vector<std::string> lines_of(const std::string& output) {
  std::vector<std::string> lines;
  std::istringstream in(output);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string value_of(const std::string& output, const std::string& key) {
  for (const auto& line : lines_of(output)) {
    if (line.starts_with(key + " ")) return line.substr(key.size() + 1);
  }
  return "";
}

}  // namespace kvcached::test
