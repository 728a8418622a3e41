// The driver refuses each call that the library makes, the first time or up to the twentieth, or
// twenty times in a row; or the system refuses memory to it. A program hears at worst that memory
// is out, reads what it wrote, and nothing is left when it has freed everything.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

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

Environment without_memory(const std::string& devices) {
  return on_small_gpu({{"LD_PRELOAD", library() + ":" + helper_library("no_memory")},
                       {"KVCACHED_MATCH", "size>=5MiB"},
                       {"SIM_GPU_COUNT", devices}},
                      "512MiB");
}

void expect_memory_matters_not(const std::string& apart) {
  const auto outcome = run_program({program("faults"), "malloc", apart}, without_memory("1"));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(lines_of(outcome.out).size(), 1U) << outcome.out;
  EXPECT_GT(std::stoi("0" + value_of(outcome.out, "rounds")), 500 / std::stoi(apart));
}

// Where the library comes to nothing, memory is plain. Its very first allocation is the C++
// runtime's, for exceptions when there is no memory.
void expect_begin_without_memory(long apart) {
  for (const char* devices : {"1", "2"}) {
    for (const char* count : {"1", "20"}) {
      for (long pass = 1; pass < 300; pass += apart) {
        auto variables = without_memory(devices);
        variables["REFUSE_MEMORY"] = std::to_string(pass) + " " + count;
        const auto outcome = run_program({program("faults"), "begin"}, variables);
        ASSERT_EQ(outcome.status, 0) << variables["REFUSE_MEMORY"] << ": " << outcome.err;
        EXPECT_EQ(outcome.out, "rounds 1\n") << variables["REFUSE_MEMORY"];
      }
    }
  }
}

TEST(FaultsUninstrumented, NoMemoryCostsNothingElse) { expect_memory_matters_not("11"); }
TEST(FaultsUninstrumented, NoMemoryAtTheBeginLeavesItPlain) { expect_begin_without_memory(29); }
TEST(FaultsUninstrumented, SoakNoMemoryAtAnyPoint) {
  expect_memory_matters_not("1");
  expect_begin_without_memory(1);
}

}  // namespace
}  // namespace kvcached::test
