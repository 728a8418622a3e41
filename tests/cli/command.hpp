// Runs build/kvcached as a user would, and keeps what it says.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/folder.hpp"

namespace kvcached::test {

struct Outcome {
  int status = -1;  // exit code; 128 + signal when a signal ended it
  std::string out;
  std::string err;
};

using Variables = std::map<std::string, std::string>;

// The build folder that is under test.
std::string build_directory();

// Runs `program` with the arguments and with these variables added to the environment; an empty
// value removes the variable.
Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                    const Variables& variables = {});
// The same for the command under test.
Outcome kvcached(const std::vector<std::string>& arguments, const Variables& variables = {});

// The same by a shell, as "$kvcached" in its script.
Outcome in_shell(const std::string& script, Variables variables = {});

// It ended with this status and said one line, on standard error, that has `part` in it.
void expect_line(const Outcome& outcome, int status, const std::string& part);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);

}  // namespace kvcached::test
