// The driver refuses each call that the library makes, the first time or up to the twentieth, or
// twenty times in a row; or the system refuses memory to it. A program hears at worst that memory
// is out, reads what it wrote, and nothing is left when it has freed everything.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/folder.hpp"
#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

class Faults : public testing::TestWithParam<const char*> {};

TEST_P(Faults, CostMemoryForAWhileAndNothingElse) {
  const std::string call = GetParam();
  const std::string file = std::filesystem::temp_directory_path().string() + "/faults-" + call;
  std::ofstream(file) << "";
  auto variables = on_small_gpu(
      {{"LD_PRELOAD", library()}, {"KVCACHED_MATCH", "size>=5MiB"}, {"SIM_GPU_FAULTS", file}},
      "512MiB");
  variables["SIM_GPU_COUNT"] = call == "cuCtxGetDevice" ? "2" : "1";  // one: it is not asked
  const auto outcome = run_program({program("faults"), call, file}, variables);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "rounds 21\n");
}

// Not here: cuCtxPopCurrent, which a driver has no reason to refuse.
INSTANTIATE_TEST_SUITE_P(
    Of, Faults,
    testing::Values("cuMemAddressReserve", "cuMemAddressFree", "cuMemCreate", "cuMemRelease",
                    "cuMemMap", "cuMemUnmap", "cuMemSetAccess", "cuEventCreate", "cuEventQuery",
                    "cuEventSynchronize", "cuEventDestroy", "cuCtxRecordEvent", "cuMemGetInfo",
                    "cuDeviceGetAttribute", "cuCtxGetCurrent", "cuCtxGetDevice", "cuCtxPushCurrent",
                    "cuThreadExchangeStreamCaptureMode", "cuStreamGetCtx", "cuStreamIsCapturing",
                    // What is mapped cannot be used, and does not go.
                    "cuMemSetAccess_cuMemUnmap"),
    [](const auto& call) { return std::string(call.param); });

Environment with_refusals(const std::string& devices) {
  return on_small_gpu({{"LD_PRELOAD", library() + ":" + helper_library("refusals")},
                       {"KVCACHED_MATCH", "size>=5MiB"},
                       {"SIM_GPU_COUNT", devices}},
                      "512MiB");
}

void expect_no_harm(const std::string& function, int apart, int rounds) {
  SCOPED_TRACE(function);
  const auto outcome = run_program({program("faults"), "refuse", function, std::to_string(apart)},
                                   with_refusals("1"));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(lines_of(outcome.out).size(), 1U) << outcome.out;
  EXPECT_GE(std::stoi("0" + value_of(outcome.out, "rounds")), rounds / apart);
}

// Where the library comes to nothing, memory is plain. The first of these calls, at least, is made.
void expect_no_harm_from_start(const std::string& function, int first, int end, int apart) {
  for (const char* count : {"1", "20"}) {
    for (int pass = first; pass < end; pass += apart) {
      const Folder pool;  // to be made anew
      auto variables = with_refusals("2");
      variables["KVCACHED_DIR"] = pool.path();
      variables["KVCACHED_LOG"] = "info";
      variables["REFUSE"] = function + " " + std::to_string(pass) + " " + count;
      const auto outcome = run_program({program("faults"), "once"}, variables);
      ASSERT_EQ(outcome.status, 0) << variables["REFUSE"] << ": " << outcome.err;
      EXPECT_EQ(lines_of(outcome.out).size(), 1U) << variables["REFUSE"] << ": " << outcome.out;
      EXPECT_GE(std::stoi("0" + value_of(outcome.out, "refused")), pass == first ? 1 : 0)
          << variables["REFUSE"];
    }
  }
}

// The very first allocation is the C++ runtime's, for exceptions when there is no memory.
constexpr int kFirstAllocation = 1, kAllocationsAtStart = 300, kAllocationsInRounds = 500;
constexpr const char* kAtStart[] = {
    "access",    "open",     "read",  "openat",    "mkdir", "fchmod",
    "fstat",     "fstatat",  "flock", "fcntl",     "mmap",  "posix_fallocate",
    "renameat2", "unlinkat", "stat",  "getrandom", "write", "pthread_create"};

TEST(FaultsUninstrumented, NoMemoryCostsNothingElse) {
  expect_no_harm("malloc", 11, kAllocationsInRounds);
}

TEST(FaultsUninstrumented, NoMemoryAtTheStartLeavesItPlain) {
  expect_no_harm_from_start("malloc", kFirstAllocation, kAllocationsAtStart, 29);
}

TEST(FaultsUninstrumented, ASystemThatRefusesCostsNothingElse) {
  expect_no_harm("fstat", 23, 100);
  expect_no_harm("flock", 7, 20);
}

TEST(FaultsUninstrumented, ASystemThatRefusesAtTheStartLeavesItPlain) {
  for (const char* function : kAtStart) expect_no_harm_from_start(function, 0, 3, 2);
}

TEST(FaultsUninstrumented, SoakRefusalsAtAnyPoint) {
  expect_no_harm("malloc", 1, kAllocationsInRounds);
  expect_no_harm("fstat", 1, 100);
  expect_no_harm("flock", 1, 20);
  expect_no_harm_from_start("malloc", kFirstAllocation, kAllocationsAtStart, 1);
  for (const char* function : kAtStart) expect_no_harm_from_start(function, 0, 12, 1);
}

}  // namespace
}  // namespace kvcached::test
