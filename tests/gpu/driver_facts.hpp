#pragma once

#include <cuda.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// What the tests of driver facts share. Every handle is released at the end of its scope, so that a
// failed test leaves the next one a clean context.
namespace driver_facts {

inline constexpr std::size_t kPage = std::size_t{2} << 20U;

/// store_word writes a 32-bit value to an address, add_word adds one to it. One thread does it all.
inline constexpr char kPtx[] = R"(
.version 7.0
.target sm_52
.address_size 64
.visible .entry store_word(.param .u64 store_word_to, .param .u32 store_word_value)
{
  .reg .b64 %rd<3>;
  .reg .b32 %r<2>;
  ld.param.u64 %rd1, [store_word_to];
  ld.param.u32 %r1, [store_word_value];
  cvta.to.global.u64 %rd2, %rd1;
  st.global.u32 [%rd2], %r1;
  ret;
}
.visible .entry add_word(.param .u64 add_word_to, .param .u32 add_word_value)
{
  .reg .b64 %rd<3>;
  .reg .b32 %r<4>;
  ld.param.u64 %rd1, [add_word_to];
  ld.param.u32 %r1, [add_word_value];
  cvta.to.global.u64 %rd2, %rd1;
  ld.global.u32 %r2, [%rd2];
  add.u32 %r3, %r2, %r1;
  st.global.u32 [%rd2], %r3;
  ret;
}
)";

/// The device, its primary context and the kernels; the same for all tests of a process.
struct Gpu {
  bool present = false;
  CUdevice device = 0;
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUfunction store = nullptr;
  CUfunction add = nullptr;

  /// A kernel may be loaded at its first launch, and wait then for streams that a test blocks.
  void warm_up() const {
    CUdeviceptr to = 0;
    std::uint32_t value = 0;
    EXPECT_EQ(cuMemAlloc(&to, sizeof value), CUDA_SUCCESS);
    std::array<void*, 2> arguments{&to, &value};
    for (const CUfunction kernel : {store, add}) {
      EXPECT_EQ(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments.data(), nullptr),
                CUDA_SUCCESS);
    }
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_EQ(cuMemFree(to), CUDA_SUCCESS);
  }

  static const Gpu& get() {
    static const Gpu gpu = [] {
      Gpu made;
      made.present = cuInit(0) == CUDA_SUCCESS && cuDeviceGet(&made.device, 0) == CUDA_SUCCESS &&
                     cuDevicePrimaryCtxRetain(&made.context, made.device) == CUDA_SUCCESS &&
                     cuCtxSetCurrent(made.context) == CUDA_SUCCESS;
      if (!made.present) return made;
      EXPECT_EQ(cuModuleLoadData(&made.module, kPtx), CUDA_SUCCESS);
      EXPECT_EQ(cuModuleGetFunction(&made.store, made.module, "store_word"), CUDA_SUCCESS);
      EXPECT_EQ(cuModuleGetFunction(&made.add, made.module, "add_word"), CUDA_SUCCESS);
      made.warm_up();
      return made;
    }();
    return gpu;
  }
};

class DriverFacts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Gpu::get().present) GTEST_SKIP() << "no GPU";
  }
  const Gpu& gpu_ = Gpu::get();
};

inline CUmemAllocationProp properties() {
  CUmemAllocationProp out{};
  out.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  out.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  out.location.id = Gpu::get().device;
  return out;
}

inline CUresult allow(CUdeviceptr address, std::size_t bytes,
                      CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
  const CUmemAccessDesc access{properties().location, flags};
  return cuMemSetAccess(address, bytes, &access, 1);
}

inline std::size_t free_memory() {
  std::size_t free = 0;
  std::size_t total = 0;
  EXPECT_EQ(cuMemGetInfo(&free, &total), CUDA_SUCCESS);
  return free;
}

/// Reserved addresses. What is still mapped in them at the end is unmapped, page run by page run.
class Range {
 public:
  explicit Range(std::size_t bytes) : bytes_(bytes) {
    EXPECT_EQ(cuMemAddressReserve(&base_, bytes, 0, 0, 0), CUDA_SUCCESS);
  }
  ~Range() {
    for (const auto& [offset, bytes] : mapped_) {
      EXPECT_EQ(cuMemUnmap(base_ + offset, bytes), CUDA_SUCCESS);
    }
    EXPECT_EQ(cuMemAddressFree(base_, bytes_), CUDA_SUCCESS);
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

  [[nodiscard]] CUdeviceptr at(std::size_t offset = 0) const { return base_ + offset; }

  /// Maps with access; undone at the end.
  void map(std::size_t offset, std::size_t bytes, CUmemGenericAllocationHandle handle) {
    ASSERT_EQ(cuMemMap(at(offset), bytes, 0, handle, 0), CUDA_SUCCESS);
    mapped_.emplace_back(offset, bytes);
    ASSERT_EQ(allow(at(offset), bytes), CUDA_SUCCESS);
  }
  void unmap_last() {
    ASSERT_EQ(cuMemUnmap(at(mapped_.back().first), mapped_.back().second), CUDA_SUCCESS);
    mapped_.pop_back();
  }

 private:
  CUdeviceptr base_ = 0;
  std::size_t bytes_;
  std::vector<std::pair<std::size_t, std::size_t>> mapped_;
};

/// Physical memory.
class Memory {
 public:
  explicit Memory(std::size_t bytes) {
    const CUmemAllocationProp wanted = properties();
    EXPECT_EQ(cuMemCreate(&handle_, bytes, &wanted, 0), CUDA_SUCCESS);
  }
  ~Memory() { release(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void release() {
    if (released_) return;
    EXPECT_EQ(cuMemRelease(handle_), CUDA_SUCCESS);
    released_ = true;
  }
  [[nodiscard]] CUmemGenericAllocationHandle handle() const { return handle_; }

 private:
  CUmemGenericAllocationHandle handle_ = 0;
  bool released_ = false;
};

/// A stream, non-blocking unless asked otherwise.
class Stream {
 public:
  explicit Stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
    EXPECT_EQ(cuStreamCreate(&stream_, flags), CUDA_SUCCESS);
  }
  ~Stream() { destroy(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void destroy() {
    if (stream_ == nullptr) return;
    EXPECT_EQ(cuStreamDestroy(stream_), CUDA_SUCCESS);
    stream_ = nullptr;
  }
  [[nodiscard]] CUstream get() const { return stream_; }

  void launch(CUfunction kernel, CUdeviceptr to, std::uint32_t value) const {
    std::array<void*, 2> arguments{&to, &value};
    ASSERT_EQ(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream_, arguments.data(), nullptr),
              CUDA_SUCCESS);
  }

 private:
  CUstream stream_ = nullptr;
};

class Event {
 public:
  Event() { EXPECT_EQ(cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS); }
  ~Event() { EXPECT_EQ(cuEventDestroy(event_), CUDA_SUCCESS); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  [[nodiscard]] CUevent get() const { return event_; }

 private:
  CUevent event_ = nullptr;
};

/// While it lives, this thread may do what a capture forbids.
class Relaxed {
 public:
  Relaxed() { EXPECT_EQ(cuThreadExchangeStreamCaptureMode(&mode_), CUDA_SUCCESS); }
  ~Relaxed() { EXPECT_EQ(cuThreadExchangeStreamCaptureMode(&mode_), CUDA_SUCCESS); }
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;

 private:
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

/// A word that the host sets and streams wait for. Raised at the end, so that no stream stays
/// stuck.
class Gate {
 public:
  Gate() {
    void* host = nullptr;
    EXPECT_EQ(cuMemHostAlloc(&host, 4, CU_MEMHOSTALLOC_DEVICEMAP), CUDA_SUCCESS);
    word_ = static_cast<std::uint32_t*>(host);
    __atomic_store_n(word_, 0U, __ATOMIC_SEQ_CST);
    EXPECT_EQ(cuMemHostGetDevicePointer(&address_, host, 0), CUDA_SUCCESS);
  }
  ~Gate() {
    open();
    EXPECT_EQ(cuMemFreeHost(word_), CUDA_SUCCESS);  // after all work that could look at it
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void block(const Stream& stream) const {
    ASSERT_EQ(cuStreamWaitValue32(stream.get(), address_, 1, CU_STREAM_WAIT_VALUE_GEQ),
              CUDA_SUCCESS);
  }
  [[nodiscard]] CUdeviceptr address() const { return address_; }
  void open() { __atomic_store_n(word_, 1U, __ATOMIC_SEQ_CST); }

 private:
  std::uint32_t* word_ = nullptr;
  CUdeviceptr address_ = 0;
};

inline std::uint32_t word_at(CUdeviceptr address) {
  std::uint32_t out = 0xdeadbeef;
  EXPECT_EQ(cuMemcpyDtoH(&out, address, sizeof out), CUDA_SUCCESS);
  return out;
}

/// Starts this program again for one test that is switched off otherwise. `output` gets a pipe's
/// reading end that is the child's standard output, if asked for.
inline pid_t start_alone(const std::string& test, int* output = nullptr) {
  std::string filter = "--gtest_filter=" + test;
  std::string also = "--gtest_also_run_disabled_tests";
  std::string self = "/proc/self/exe";
  std::array<char*, 4> arguments{self.data(), filter.data(), also.data(), nullptr};
  std::array<int, 2> ends{};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (output != nullptr) {
    EXPECT_EQ(pipe(ends.data()), 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
  }
  pid_t child = -1;
  EXPECT_EQ(posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  if (output != nullptr) {
    close(ends[1]);
    *output = ends[0];
  }
  return child;
}

/// The exit status of a test that ran in its own process, -1 if it did not exit.
inline int run_alone(const std::string& test) {
  int status = 0;
  const pid_t child = start_alone(test);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace driver_facts
