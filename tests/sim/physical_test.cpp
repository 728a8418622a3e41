// Memory that processes share: capacity, death, fragments.
#include <poll.h>

#include <csignal>
#include <cstdio>
#include <vector>

#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

using driver_facts::free_memory;
using driver_facts::Gpu;
using driver_facts::kPage;
using driver_facts::Memory;
using driver_facts::properties;
using driver_facts::Range;

constexpr std::size_t kCapacity = 64 * kPage;

Environment small_gpu(const Folder& folder, const char* reap_ms) {
  return {
      {"SIM_GPU_DIR", folder.path()}, {"SIM_GPU_MEMORY", "128MiB"}, {"SIM_GPU_REAP_MS", reap_ms}};
}

CUresult create(std::size_t bytes, CUmemGenericAllocationHandle& out) {
  const CUmemAllocationProp wanted = properties();
  return cuMemCreate(&out, bytes, &wanted, 0);
}

/// Starts a process that holds memory, or does what else `test` says, and waits for its word.
pid_t start_and_listen(const std::string& test, int& output) {
  const pid_t child = driver_facts::start_alone("Alone.DISABLED_" + test, &output);
  std::string said;
  char byte = 0;
  while (said.find("ready") == std::string::npos && read(output, &byte, 1) == 1) said += byte;
  EXPECT_NE(said.find("ready"), std::string::npos);
  return child;
}

void say_ready() {
  std::puts("ready");
  std::fflush(stdout);
}

void end(pid_t child, int output, int signal) {
  if (signal != 0) {
    ASSERT_EQ(kill(child, signal), 0);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  close(output);
}

void wait_until_free(std::size_t bytes) {
  while (free_memory() < bytes) poll(nullptr, 0, 1);
}

TEST(Physical, ProcessesCompeteForTheCapacity) {
  const Folder folder;
  EXPECT_TRUE(passes_alone("Compete", small_gpu(folder, "0")));
}

TEST(Alone, DISABLED_Compete) {
  ASSERT_TRUE(Gpu::get().present);
  EXPECT_EQ(free_memory(), kCapacity);
  int output = -1;
  const pid_t child = start_and_listen("HoldHalf", output);
  EXPECT_EQ(free_memory(), kCapacity / 2);
  CUmemGenericAllocationHandle handle = 0;
  EXPECT_EQ(create(kCapacity / 2 + kPage, handle), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(create(kCapacity / 2, handle), CUDA_SUCCESS);
  EXPECT_EQ(free_memory(), 0U);
  end(child, output, SIGKILL);
  EXPECT_EQ(free_memory(), kCapacity / 2);
}

TEST(Alone, DISABLED_HoldHalf) {
  ASSERT_TRUE(Gpu::get().present);
  const Memory memory(kCapacity / 2);
  Range range(kCapacity / 2);
  range.map(0, kCapacity / 2, memory.handle());
  ASSERT_EQ(cuMemsetD8(range.at(), 0xff, kCapacity / 2), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  say_ready();
  poll(nullptr, 0, 60'000);  // killed meanwhile
}

TEST(Physical, MemoryOfAKilledProcessReturnsLateAndZeroed) {
  const Folder folder;
  EXPECT_TRUE(passes_alone("Late", small_gpu(folder, "30")));
}

TEST(Alone, DISABLED_Late) {
  ASSERT_TRUE(Gpu::get().present);
  int output = -1;
  const pid_t child = start_and_listen("HoldHalf", output);
  end(child, output, SIGKILL);
  EXPECT_EQ(free_memory(), kCapacity / 2);  // the time counts from the first look
  wait_until_free(kCapacity);
  const Memory memory(kCapacity);
  Range range(kCapacity);
  range.map(0, kCapacity, memory.handle());
  std::vector<std::uint8_t> seen(kCapacity, 1);
  ASSERT_EQ(cuMemcpyDtoH(seen.data(), range.at(), kCapacity), CUDA_SUCCESS);
  EXPECT_EQ(seen, std::vector<std::uint8_t>(kCapacity, 0));
}

TEST(Physical, MemoryReturnsAtOnceFromAProcessThatEnds) {
  const Folder folder;
  EXPECT_TRUE(passes_alone("Leave", small_gpu(folder, "3600000")));
}

TEST(Alone, DISABLED_Leave) {
  ASSERT_TRUE(Gpu::get().present);
  int output = -1;
  const pid_t child = start_and_listen("Leak", output);
  end(child, output, 0);
  EXPECT_EQ(free_memory(), kCapacity);
}

TEST(Alone, DISABLED_Leak) {
  ASSERT_TRUE(Gpu::get().present);
  CUmemGenericAllocationHandle handle = 0;
  ASSERT_EQ(create(kCapacity / 2, handle), CUDA_SUCCESS);
  say_ready();
}

TEST(Physical, KilledInTheMiddleOfACallLeavesTheBookUsable) {
  const Folder folder;
  EXPECT_TRUE(passes_alone("KillBusy", small_gpu(folder, "0")));
}

TEST(Alone, DISABLED_KillBusy) {
  ASSERT_TRUE(Gpu::get().present);
  for (int round = 0; round < 12; ++round) {
    int output = -1;
    const pid_t child = start_and_listen("Busy", output);
    poll(nullptr, 0, round);
    end(child, output, SIGKILL);
    EXPECT_EQ(free_memory(), kCapacity);
    const Memory all(kCapacity);
    EXPECT_EQ(free_memory(), 0U);
  }
}

TEST(Alone, DISABLED_Busy) {
  ASSERT_TRUE(Gpu::get().present);
  say_ready();
  for (std::size_t pages = 1;; pages = pages % 5 + 1) {
    const Memory first(pages * kPage);
    const Memory second(kPage);
  }
}

TEST(Physical, FragmentsServeALargeAllocation) {
  const Folder folder;
  EXPECT_TRUE(passes_alone("Fragments", small_gpu(folder, "0")));
}

TEST(Alone, DISABLED_Fragments) {
  ASSERT_TRUE(Gpu::get().present);
  std::vector<CUmemGenericAllocationHandle> handles(kCapacity / kPage);
  for (auto& handle : handles) ASSERT_EQ(create(kPage, handle), CUDA_SUCCESS);
  for (std::size_t i = 0; i < handles.size(); i += 2) cuMemRelease(handles[i]);
  const Memory memory(kCapacity / 2);
  Range range(kCapacity);
  range.map(0, kCapacity / 2, memory.handle());
  range.map(kCapacity / 2, kCapacity / 2, memory.handle());
  for (std::size_t page = 0; page < kCapacity / 2 / kPage; ++page) {
    ASSERT_EQ(cuMemsetD32(range.at(page * kPage), static_cast<unsigned>(page), 1), CUDA_SUCCESS);
  }
  for (std::size_t page = 0; page < kCapacity / 2 / kPage; ++page) {
    EXPECT_EQ(driver_facts::word_at(range.at(kCapacity / 2 + page * kPage)), page);
  }
}

TEST(Physical, ContextsTakeTheirOwnMemory) {
  const Folder folder;
  Environment settings = small_gpu(folder, "0");
  settings["SIM_GPU_CONTEXT_MEMORY"] = "6MiB";
  EXPECT_TRUE(passes_alone("Overhead", settings));
}

TEST(Alone, DISABLED_Overhead) {
  ASSERT_TRUE(Gpu::get().present);
  EXPECT_EQ(free_memory(), kCapacity - 3 * kPage);
  CUcontext second = nullptr;
  ASSERT_EQ(cuCtxCreate(&second, nullptr, 0, 0), CUDA_SUCCESS);
  CUdeviceptr plain = 0;
  ASSERT_EQ(cuMemAlloc(&plain, 5 * kPage), CUDA_SUCCESS);
  EXPECT_EQ(free_memory(), kCapacity - 11 * kPage);
  ASSERT_EQ(cuCtxDestroy(second), CUDA_SUCCESS);
  EXPECT_EQ(free_memory(), kCapacity - 3 * kPage);
}

TEST(Physical, MemoryOpensInAnotherProcess) {
  const Folder folder;
  EXPECT_TRUE(passes_alone("Share", small_gpu(folder, "0")));
}

TEST(Alone, DISABLED_Share) {
  ASSERT_TRUE(Gpu::get().present);
  const Folder folder;
  CUdeviceptr small = 0;
  CUdeviceptr large = 0;
  ASSERT_EQ(cuMemAlloc(&small, 100), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAlloc(&small, 100), CUDA_SUCCESS);  // not at the start of its block
  ASSERT_EQ(cuMemAlloc(&large, 3 * kPage), CUDA_SUCCESS);
  ASSERT_EQ(cuMemsetD32(small, 17, 1), CUDA_SUCCESS);
  ASSERT_EQ(cuMemsetD32(large + 2 * kPage, 18, 1), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  CUipcMemHandle handles[2];
  ASSERT_EQ(cuIpcGetMemHandle(&handles[0], small), CUDA_SUCCESS);
  ASSERT_EQ(cuIpcGetMemHandle(&handles[1], large), CUDA_SUCCESS);
  CUdeviceptr own = 0;
  EXPECT_NE(cuIpcOpenMemHandle(&own, handles[1], 0), CUDA_SUCCESS);
  const std::string path = folder / "handles";
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  ASSERT_EQ(std::fwrite(handles, sizeof handles, 1, file), 1U);
  std::fclose(file);
  EXPECT_TRUE(passes_alone("OpenShared", {{"SIM_TEST_FILE", path}}));
  EXPECT_EQ(driver_facts::word_at(large), 19U);
}

TEST(Alone, DISABLED_OpenShared) {
  ASSERT_TRUE(Gpu::get().present);
  CUipcMemHandle handles[2];
  std::FILE* const file = std::fopen(std::getenv("SIM_TEST_FILE"), "rb");
  ASSERT_EQ(std::fread(handles, sizeof handles, 1, file), 1U);
  std::fclose(file);
  CUdeviceptr small = 0;
  CUdeviceptr large = 0;
  const std::size_t before = free_memory();
  ASSERT_EQ(cuIpcOpenMemHandle(&small, handles[0], 0), CUDA_SUCCESS);
  ASSERT_EQ(cuIpcOpenMemHandle(&large, handles[1], 0), CUDA_SUCCESS);
  EXPECT_EQ(free_memory(), before);
  EXPECT_EQ(driver_facts::word_at(small), 17U);
  EXPECT_EQ(driver_facts::word_at(large + 2 * kPage), 18U);
  ASSERT_EQ(cuMemsetD32(large, 19, 1), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(large), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuIpcCloseMemHandle(large), CUDA_SUCCESS);
  EXPECT_EQ(cuIpcCloseMemHandle(small), CUDA_SUCCESS);
}

}  // namespace
}  // namespace sim_test
