// Runs a program as a user would: a child process with its own environment.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace kvcached::test {

using Environment = std::map<std::string, std::string>;  // over the test's own; empty value: unset

struct Outcome {
  int status = -1;  // exit status; 128 + n after signal n
  std::string out;
  std::string err;
};

Outcome run_program(const std::vector<std::string>& words, const Environment& variables = {});

std::string build_folder();
std::string source_folder();
std::string library();                         // libkvcached.so
std::string program(const std::string& name);  // tests/preload/programs/NAME
std::string helper_library(const std::string& name);

// The library preloaded, and every allocation of 4 MiB or more elastic.
Environment elastic();

// A simulated GPU and a pool of their own, with this much memory ("256MiB"): what a program leaves
// behind is soon missed. On a real GPU it changes nothing.
Environment on_small_gpu(Environment variables, const std::string& memory);

// The value after "key " on its line; empty when there is none.
std::string value_of(const std::string& output, const std::string& key);
std::vector<std::string> lines_of(const std::string& output);

}  // namespace kvcached::test
