// Every look-up of every function by name, version and flags answers as the driver's own does, and
// where the library stands in front it is the door of the same ABI.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "tests/preload/door_names.hpp"

namespace kvcached::test {
namespace {

std::vector<std::string> answers(const Environment& variables) {
  const auto outcome = run_program({program("matrix")}, variables);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  return lines_of(outcome.out);
}

// "ask cuMemAlloc 3020 0 0 0 driver 4711" in two.
struct Answer {
  std::string request;
  std::string owner;  // "driver", "library" or "nobody"
  std::uint64_t offset = 0;
};

Answer parsed(const std::string& line) {
  for (const std::string owner : {"driver", "library", "nobody"}) {
    const auto at = line.find(" " + owner);
    if (at == std::string::npos) continue;
    const auto after = at + 1 + owner.size();
    return {line.substr(0, at), owner, after < line.size() ? std::stoull(line.substr(after)) : 0};
  }
  return {line, "?", 0};
}

using Names = std::map<std::uint64_t, std::set<std::string>>;

// The driver's symbols by address. The simulated one has some functions that share one.
Names driver_symbols(const std::vector<std::string>& alone) {
  Names names;
  for (const auto& line : alone) {
    const auto answer = parsed(line);
    if (answer.request.starts_with("dlsym ")) {
      names[answer.offset].insert(answer.request.substr(6));
    }
  }
  return names;
}

using Symbols = std::set<std::string>;

Symbols operator+(Symbols left, const Symbols& right) {
  left.insert(right.begin(), right.end());
  return left;
}

bool right(const Answer& with, const Answer& alone, const Names& names, const Symbols& ours) {
  if (with.owner == "library") {
    const std::string door = door_at(with.offset);
    return alone.owner == "driver" && ours.contains(door) && names.at(alone.offset).contains(door);
  }
  if (with.owner != alone.owner || with.offset != alone.offset) return false;
  if (alone.owner != "driver") return true;
  const auto& symbols = names.at(alone.offset);
  return symbols.size() > 1 || !ours.contains(*symbols.begin());
}

// `ours`: the symbols in front of which the library is to stand.
void compare(const std::vector<std::string>& with, const Symbols& ours) {
  const auto alone = answers({});
  ASSERT_GT(alone.size(), 600U * 50);
  ASSERT_EQ(with.size(), alone.size());
  const auto names = driver_symbols(alone);
  int wrong = 0;
  std::set<std::string> doors;
  for (std::size_t i = 0; i < alone.size() && wrong < 20; ++i) {
    const Answer a = parsed(alone[i]);
    const Answer w = parsed(with[i]);
    EXPECT_EQ(w.request, a.request);
    if (!right(w, a, names, ours)) {
      ADD_FAILURE() << a.request << ": " << w.owner << " " << door_at(w.offset) << "; the driver's "
                    << a.owner << " " << *names.at(a.offset).begin();
      ++wrong;
    }
    if (w.owner == "library") doors.insert(door_at(w.offset));
  }
  EXPECT_EQ(doors, ours);
}

TEST(ProcAddress, AnswersAsTheDriverDoes) {
  compare(answers({{"LD_PRELOAD", library()}, {"KVCACHED_HINTS", "args"}}), hook_symbols());
}

TEST(ProcAddress, StandsInFrontOfLaunchesOnlyWithARule) {
  compare(answers(elastic()), hook_symbols() + evidence_symbols());
}

TEST(ProcAddress, StandsInFrontOfNodesOnlyWhereTheirArgumentsCount) {
  auto with = elastic();
  with["KVCACHED_HINTS"] = "args";
  compare(answers(with), hook_symbols() + evidence_symbols() + node_symbols());
}

TEST(ProcAddress, SwitchedOffChangesNoAnswer) {
  auto off = elastic();
  off["KVCACHED_DISABLE"] = "1";
  EXPECT_EQ(answers(off), answers({}));
}

TEST(ProcAddress, LeavesLaterGenerationsAloneAndFollowsTheRulesWhereSymbolsAreSilent) {
  const auto driver = std::filesystem::temp_directory_path() / "newer" / "libcuda.so.1";
  std::filesystem::create_directories(driver.parent_path());
  std::filesystem::copy_file(helper_library("newer_driver"), driver,
                             std::filesystem::copy_options::overwrite_existing);
  const auto alone = run_program({program("generations"), driver});
  EXPECT_EQ(alone.out, "cuMemAlloc 14000 driver\ncuMemAlloc 13000 driver\ncuMemFree 13000 driver\n")
      << alone.err;
  const auto with = run_program({program("generations"), driver}, {{"LD_PRELOAD", library()}});
  EXPECT_EQ(with.out,
            "cuMemAlloc 14000 driver\ncuMemAlloc 13000 library\ncuMemFree 13000 library\n")
      << with.err;
}

TEST(ProcAddress, TheTableHasWhatRuntimesCall) {
  for (const char* symbol :
       {"cuGetProcAddress", "cuGetProcAddress_v2", "cuMemAlloc_v2", "cuMemFree_v2",
        "cuMemFreeAsync_ptsz", "cuMemGetInfo_v2", "cuMemGetAddressRange_v2",
        "cuPointerGetAttributes", "cuIpcGetMemHandle", "cuMemRetainAllocationHandle",
        "cuStreamBeginCapture_v2_ptsz", "cuStreamBeginCaptureToGraph", "cuStreamEndCapture",
        "cuCtxDestroy_v2", "cuDevicePrimaryCtxReset_v2", "cuDevicePrimaryCtxRelease_v2"}) {
    EXPECT_TRUE(hook_symbols().contains(symbol)) << symbol;
  }
  for (const char* symbol :
       {"cuLaunchKernel_ptsz", "cuLaunchKernelEx", "cuLaunchCooperativeKernel", "cuGraphLaunch",
        "cuMemsetD8_v2_ptds", "cuMemsetD8Async", "cuMemcpyHtoDAsync_v2", "cuMemcpyAsync_ptsz",
        "cuMemcpyBatchAsync_v2", "cuStreamWriteValue32_v2", "cuStreamWaitValue64_v2",
        "cuStreamBatchMemOp_v2"}) {
    EXPECT_TRUE(evidence_symbols().contains(symbol)) << symbol;
  }
}

}  // namespace
}  // namespace kvcached::test
