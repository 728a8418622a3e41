// KVCACHED_HINTS=args: only what the arguments of work name is backed before it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/preload/door_names.hpp"

namespace kvcached::test {
namespace {

// What each step is to say: MiB of the three buffers.
constexpr const char* kByArguments = R"(module 0 library 0
fill 0: 2 0 0
fill_async 0: 0 4 0
fill_rows 0: 4 0 0
into 0: 0 2 0
out_of 0: 0 0 4
between 0: 2 0 2
any 0: 4 4 0
peer 0: 2 0 2
rows 0: 0 4 0
box 0: 4 0 2
batch 0: 2 2 4
word 0: 0 2 0
word_waited 0: 0 0 2
long_word_waited 0: 2 0 0
unknown 0: 8 8 8
pointer 0: 0 8 0
structure 0: 0 0 8
end_of 0: 0 0 0
packed 0: 8 0 0
kernel_handle 0: 0 8 0
cooperative 0: 0 0 8
ex 0: 8 0 0
without 0: 0 0 0
whole_by_parts 0: 0 8 0
captured 0: 0 8 2
node 0: 8 0 0
node_changed 0: 8 0 8
fill_node 0: 0 4 0
any_node 0: 0 0 2
tensor_map 0: 8 0 0
tensor_map_moved 0: 0 0 8
texture 0: 0 8 0
texture_rows 0: 0 0 8
texture_of_array 0: 0 0 0
)";

Environment with_arguments() {
  Environment variables = elastic();
  variables["KVCACHED_HINTS"] = "args";
  variables["SIM_GPU_KERNELS"] = helper_library("argument_kernels");
  return variables;
}

// The same output with everything backed in the steps that `changed` names.
std::string all_in(const std::function<bool(const std::string&)>& changed) {
  std::string out;
  for (const auto& line : lines_of(kByArguments)) {
    const auto colon = line.find(':');
    const bool all = colon != std::string::npos && changed(line.substr(0, line.find(' ')));
    out += (all ? line.substr(0, colon) + ": 8 8 8" : line) + "\n";
  }
  return out;
}

TEST(ArgumentHints, BackExactlyWhatTheArgumentsName) {
  const auto outcome = run_program({program("arguments")}, with_arguments());
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, kByArguments) << outcome.err;
}

TEST(ArgumentHints, AreOffUnlessPromised) {
  auto variables = with_arguments();
  variables.erase("KVCACHED_HINTS");
  const auto outcome = run_program({program("arguments")}, variables);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  // A node that is not launched is no work yet, nor is a descriptor.
  std::string expected = all_in([](const std::string&) { return true; });
  for (const char* step : {"fill_node", "any_node", "tensor_map", "tensor_map_moved", "texture",
                           "texture_rows", "texture_of_array"}) {
    const std::string line = std::string("\n") + step + " 0: ";
    expected.replace(expected.find(line) + line.size(), 5, "0 0 0");
  }
  EXPECT_EQ(outcome.out, expected) << outcome.err;
}

TEST(ArgumentHints, WhereTheDriverDoesNotTellTheParametersEverythingIsBacked) {
  const std::string faults =
      (std::filesystem::temp_directory_path() / "no-parameter-info").string();
  std::ofstream(faults) << "cuFuncGetParamInfo every=1 error=801\n"
                        << "cuKernelGetParamInfo every=1 error=801\n";
  auto variables = with_arguments();
  variables["SIM_GPU_FAULTS"] = faults;
  const auto outcome = run_program({program("arguments")}, variables);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const std::set<std::string> kernels{"pointer",     "structure",   "end_of",   "kernel_handle",
                                      "cooperative", "ex",          "captured", "whole_by_parts",
                                      "node",        "node_changed"};
  EXPECT_EQ(outcome.out, all_in([&](const std::string& s) { return kernels.contains(s); }))
      << outcome.err;
}

}  // namespace
}  // namespace kvcached::test
