// Failures from a control file, and other settings.
#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

using driver_facts::Gpu;
using driver_facts::kPage;

void write(const std::string& path, const std::string& text) {
  std::ofstream(path + ".new") << text;
  std::filesystem::rename(path + ".new", path);
}

/// The control file of this process.
std::string control_file() {
  const char* const path = std::getenv("SIM_GPU_FAULTS");
  return path == nullptr ? "" : path;
}

bool passes_with_faults(const std::string& test, const std::string& faults) {
  const Folder folder;
  write(folder / "faults", faults);
  return passes_alone(test, {{"SIM_GPU_FAULTS", folder / "faults"}});
}

/// Results of as many cuMemGetInfo calls.
std::vector<CUresult> ask(std::size_t times) {
  std::vector<CUresult> out(times);
  for (CUresult& result : out) {
    std::size_t free = 0;
    std::size_t total = 0;
    result = cuMemGetInfo(&free, &total);
  }
  return out;
}

TEST(Faults, NthCallFails) {
  EXPECT_TRUE(passes_with_faults("Nth", "# comment\n\ncuMemGetInfo nth=3 error=999\n"));
}

TEST(Alone, DISABLED_Nth) {
  ASSERT_TRUE(Gpu::get().present);
  EXPECT_EQ(ask(5), (std::vector<CUresult>{CUDA_SUCCESS, CUDA_SUCCESS, CUDA_ERROR_UNKNOWN,
                                           CUDA_SUCCESS, CUDA_SUCCESS}));
}

TEST(Faults, EveryNthCallFails) {
  EXPECT_TRUE(passes_with_faults("Every", "cuMemGetInfo every=2 error=2"));
}

TEST(Alone, DISABLED_Every) {
  ASSERT_TRUE(Gpu::get().present);
  EXPECT_EQ(ask(4), (std::vector<CUresult>{CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY, CUDA_SUCCESS,
                                           CUDA_ERROR_OUT_OF_MEMORY}));
}

TEST(Faults, ChanceDependsOnTheSeedAlone) {
  EXPECT_TRUE(passes_with_faults("Chance", "cuMemGetInfo chance=0.25 seed=5 error=2"));
}

TEST(Alone, DISABLED_Chance) {
  ASSERT_TRUE(Gpu::get().present);
  const std::string path = control_file();
  const auto failed = [](const std::vector<CUresult>& all) {
    return std::count(all.begin(), all.end(), CUDA_ERROR_OUT_OF_MEMORY);
  };
  const std::vector<CUresult> first = ask(400);
  EXPECT_GT(failed(first), 50);
  EXPECT_LT(failed(first), 150);
  write(path, "cuMemGetInfo chance=0.25 seed=5 error=2\n#\n");
  EXPECT_EQ(ask(400), first);
  write(path, "cuMemGetInfo chance=0.25 seed=6 error=2");
  EXPECT_NE(ask(400), first);
  std::filesystem::remove(path);
  EXPECT_EQ(failed(ask(400)), 0);
}

TEST(Faults, ACallMayTakeLonger) {
  EXPECT_TRUE(passes_with_faults("Delay", "cuMemGetInfo nth=2 delay=100 error=0"));
}

TEST(Alone, DISABLED_Delay) {
  ASSERT_TRUE(Gpu::get().present);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(ask(2), (std::vector<CUresult>{CUDA_SUCCESS, CUDA_SUCCESS}));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(100));
}

TEST(Faults, NameMeansAllGenerationsOfACallAndNoOther) {
  EXPECT_TRUE(passes_with_faults("Names", ""));
}

TEST(Alone, DISABLED_Names) {
  ASSERT_TRUE(Gpu::get().present);
  write(control_file(), "cuMemAlloc every=1 error=2");
  CUdeviceptr address = 0;
  std::size_t pitch = 0;
  EXPECT_EQ(cuMemAlloc(&address, 4), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuMemAllocPitch(&address, &pitch, 4, 4, 4), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAllocAsync(&address, 4, nullptr), CUDA_SUCCESS);
}

TEST(Faults, RefusedCallDoesNothing) {
  EXPECT_TRUE(
      passes_with_faults("Nothing", "cuMemCreate nth=1 error=2\ncuMemUnmap nth=1 error=999"));
}

TEST(Alone, DISABLED_Nothing) {
  ASSERT_TRUE(Gpu::get().present);
  const CUmemAllocationProp wanted = driver_facts::properties();
  CUmemGenericAllocationHandle handle = 0;
  const std::size_t before = driver_facts::free_memory();
  EXPECT_EQ(cuMemCreate(&handle, kPage, &wanted, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(driver_facts::free_memory(), before);
  driver_facts::Range range(kPage);
  const driver_facts::Memory memory(kPage);
  range.map(0, kPage, memory.handle());
  EXPECT_EQ(cuMemUnmap(range.at(), kPage), CUDA_ERROR_UNKNOWN);
  EXPECT_EQ(cuMemsetD32(range.at(), 1, 1), CUDA_SUCCESS);
  EXPECT_EQ(driver_facts::word_at(range.at()), 1U);
}

TEST(Settings, LatencyIsTakenOnRequest) {
  EXPECT_TRUE(passes_alone("Latency", {{"SIM_GPU_LATENCY", "1"}}));
}

TEST(Alone, DISABLED_Latency) {
  ASSERT_TRUE(Gpu::get().present);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) const driver_facts::Memory memory(kPage);
  // At least that; how much more depends on the machine.
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::microseconds(1700));
}

TEST(Settings, ThreadsThatUseOneHandleAtOnceAreRefused) {
  EXPECT_TRUE(passes_alone("OneHandle", {{"SIM_GPU_LATENCY", "1"}}));
}

/// Whether one of two threads hears UNKNOWN, mapping and unmapping for a while.
bool refused(CUmemGenericAllocationHandle first, CUmemGenericAllocationHandle second) {
  driver_facts::Range range(2 * kPage);
  std::atomic<bool> heard{false};
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  const auto map = [&](CUdeviceptr at, CUmemGenericAllocationHandle handle) {
    while (!heard && std::chrono::steady_clock::now() < until) {
      const CUresult mapped = cuMemMap(at, kPage, 0, handle, 0);
      const CUresult accessed =
          mapped == CUDA_SUCCESS ? driver_facts::allow(at, kPage) : CUDA_SUCCESS;
      CUresult unmapped = CUDA_SUCCESS;
      do {
        if (mapped == CUDA_SUCCESS) unmapped = cuMemUnmap(at, kPage);
        for (const CUresult result : {mapped, accessed, unmapped})
          if (result == CUDA_ERROR_UNKNOWN) heard = true;
      } while (unmapped == CUDA_ERROR_UNKNOWN);
    }
  };
  std::thread other([&] { map(range.at() + kPage, second); });
  map(range.at(), first);
  other.join();
  return heard;
}

TEST(Alone, DISABLED_OneHandle) {
  ASSERT_TRUE(Gpu::get().present);
  const driver_facts::Memory one(kPage);
  const driver_facts::Memory two(kPage);
  EXPECT_TRUE(refused(one.handle(), one.handle()));
  EXPECT_FALSE(refused(one.handle(), two.handle()));
}

TEST(Settings, SeveralGpusHaveTheirOwnNamesAndMemory) {
  EXPECT_TRUE(passes_alone("Count", {{"SIM_GPU_COUNT", "2"}}));
}

TEST(Alone, DISABLED_Count) {
  ASSERT_TRUE(Gpu::get().present);
  int count = 0;
  ASSERT_EQ(cuDeviceGetCount(&count), CUDA_SUCCESS);
  EXPECT_EQ(count, 2);
  CUuuid first{};
  CUuuid second{};
  ASSERT_EQ(cuDeviceGetUuid(&first, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuDeviceGetUuid(&second, 1), CUDA_SUCCESS);
  EXPECT_NE(std::string(first.bytes, 16), std::string(second.bytes, 16));
  EXPECT_EQ(cuDeviceGetUuid(&second, 2), CUDA_ERROR_INVALID_DEVICE);
  const std::size_t before = driver_facts::free_memory();
  CUmemAllocationProp other = driver_facts::properties();
  other.location.id = 1;
  CUmemGenericAllocationHandle handle = 0;
  ASSERT_EQ(cuMemCreate(&handle, 16 * kPage, &other, 0), CUDA_SUCCESS);
  EXPECT_EQ(driver_facts::free_memory(), before);
  EXPECT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
