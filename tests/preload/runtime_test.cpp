// NVIDIA's own runtime, shared and static, reaches the driver through the library: it looks every
// function up when it starts, and gets the right one each time. It goes no further on a simulated
// driver, which it refuses; miniruntime_test.cpp takes over there.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/preload/door_names.hpp"

namespace kvcached::test {
namespace {

struct LookUp {
  std::string name;
  int version = 0;
  int flags = 0;
  int result = 0;
  std::string owner;  // of what the runtime got
  std::uint64_t offset = 0;
  std::string driver_owner;  // of what the driver answers
  std::uint64_t driver_offset = 0;
};

std::vector<LookUp> look_ups_of(const std::string& name, Environment variables) {
  const std::string file = std::filesystem::temp_directory_path().string() + "/look-ups";
  std::filesystem::remove(file);
  variables["LD_PRELOAD"] = helper_library("witness") + " " + library();
  variables["WITNESS_FILE"] = file;
  const auto outcome = run_program({program(name)}, variables);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  std::vector<LookUp> all;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    LookUp l;
    std::istringstream words(line);
    std::string ask;
    words >> ask >> l.name >> l.version >> l.flags >> l.result >> l.owner >> l.offset >>
        l.driver_owner >> l.driver_offset;
    l.name = l.name.substr(1, l.name.size() - 2);
    all.push_back(l);
  }
  return all;
}

class Runtime : public testing::TestWithParam<const char*> {};

TEST_P(Runtime, MakesAllItsLookUpsThroughTheLibraryUninstrumented) {
  // With a rule everything that we can stand in front of, we do.
  const auto all = look_ups_of(GetParam(), elastic());
  // 4 to find out about the driver, 439 for the runtime of CUDA 13.0; later ones may have more.
  EXPECT_GE(all.size(), 400U);
  std::set<std::string> doors;
  for (const auto& l : all) {
    const std::string request =
        l.name + " " + std::to_string(l.version) + " " + std::to_string(l.flags);
    if (l.owner != "library") {
      EXPECT_EQ(l.owner, l.driver_owner) << request;
      EXPECT_EQ(l.offset, l.driver_offset) << request;
      continue;
    }
    EXPECT_EQ(l.driver_owner, "driver") << request;
    const std::string door = door_at(l.offset);
    EXPECT_TRUE(door.starts_with(l.name)) << request << ": " << door;
    EXPECT_EQ(door.ends_with("_ptsz") || door.ends_with("_ptds"),
              l.flags == 2 && door.find("_pt") != std::string::npos)
        << request << ": " << door;
    doors.insert(door);
  }
  for (const char* needed : {"cuGetProcAddress_v2",
                             "cuMemAlloc_v2",
                             "cuMemFree_v2",
                             "cuMemGetInfo_v2",
                             "cuMemAllocPitch_v2",
                             "cuMemAllocAsync",
                             "cuMemAllocAsync_ptsz",
                             "cuMemFreeAsync",
                             "cuPointerGetAttributes",
                             "cuIpcGetMemHandle",
                             "cuLaunchKernel",
                             "cuLaunchKernel_ptsz",
                             "cuLaunchKernelEx",
                             "cuLaunchCooperativeKernel",
                             "cuGraphLaunch",
                             "cuGraphLaunch_ptsz",
                             "cuMemcpyHtoDAsync_v2",
                             "cuMemcpyHtoDAsync_v2_ptsz",
                             "cuMemcpyAsync",
                             "cuMemsetD8_v2",
                             "cuMemsetD8_v2_ptds",
                             "cuMemsetD8Async",
                             "cuMemcpyBatchAsync_v2",
                             "cuStreamBeginCapture_v2",
                             "cuStreamBeginCapture_v2_ptsz",
                             "cuStreamEndCapture",
                             "cuDevicePrimaryCtxRelease",
                             "cuDevicePrimaryCtxReset",
                             "cuCtxEnablePeerAccess"}) {
    EXPECT_TRUE(doors.contains(needed)) << needed;
  }
}

TEST_P(Runtime, GetsTheDriversOwnLaunchesWithoutARuleUninstrumented) {
  for (const auto& l : look_ups_of(GetParam(), {})) {
    if (l.owner == "library") {
      EXPECT_TRUE(hook_symbols().contains(door_at(l.offset))) << l.name;
    }
  }
}

TEST_P(Runtime, AnswersTheSameWithAndWithoutTheLibrary) {
  const auto alone = run_program({program(GetParam())});
  const auto with = run_program({program(GetParam())}, {{"LD_PRELOAD", library()}});
  EXPECT_EQ(with.status, alone.status);
  EXPECT_EQ(with.out, alone.out);
}

INSTANTIATE_TEST_SUITE_P(Builds, Runtime,
                         testing::Values("runtime_shared_default", "runtime_shared_per_thread",
                                         "runtime_static_default", "runtime_static_per_thread"),
                         [](const auto& build) { return std::string(build.param).substr(8); });

}  // namespace
}  // namespace kvcached::test
