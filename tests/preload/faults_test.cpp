// The driver refuses each call that the library makes, the first time or up to the twentieth, or
// twenty times in a row: a program hears at worst that memory is out, reads what it wrote, and
// nothing is left when it has freed everything.
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

}  // namespace
}  // namespace kvcached::test
