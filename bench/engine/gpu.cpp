#include "bench/engine/gpu.hpp"

#include <array>
#include <utility>

namespace kvcached::engine {
namespace {

constexpr const char* kPtx =
#include "bench/engine/kernels.ptx"
    ;
constexpr unsigned kThreads = 128;

std::string describe(const char* call, CUresult error) {
  const char* name = nullptr;
  cuGetErrorName(error, &name);
  return std::string(call) + ": " +
         (name != nullptr ? name : "error " + std::to_string(static_cast<int>(error)));
}

void check(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) {
    throw GpuError(call, result);
  }
}

}  // namespace

GpuError::GpuError(const char* call, CUresult error) : std::runtime_error(describe(call, error)) {}

DeviceBuffer::DeviceBuffer(std::size_t bytes) : bytes_(bytes) {
  check(cuMemAlloc(&address_, bytes), "cuMemAlloc");
}

DeviceBuffer::~DeviceBuffer() {
  if (address_ != 0) {
    cuMemFree(address_);
  }
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : address_(std::exchange(other.address_, 0)), bytes_(other.bytes_) {}

Device::Device(int ordinal) {
  check(cuInit(0), "cuInit");
  check(cuDeviceGet(&device_, ordinal), "cuDeviceGet");
  check(cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
  check(cuCtxSetCurrent(context_), "cuCtxSetCurrent");
  check(cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

Device::~Device() {
  cuStreamDestroy(stream_);
  cuDevicePrimaryCtxRelease(device_);
}

std::string Device::name() const {
  std::array<char, 128> name{};
  check(cuDeviceGetName(name.data(), static_cast<int>(name.size()), device_), "cuDeviceGetName");
  return name.data();
}

void Device::synchronize() { check(cuStreamSynchronize(stream_), "cuStreamSynchronize"); }

Model::Model(Device& device, const ModelShape& shape, const std::vector<DeviceBuffer>& buffers)
    : device_(device), shape_(shape), buffers_(buffers), counters_(sizeof(Counters)) {
  check(cuModuleLoadData(&module_, kPtx), "cuModuleLoadData");
  check(cuModuleGetFunction(&write_, module_, "kv_write"), "cuModuleGetFunction");
  check(cuModuleGetFunction(&check_, module_, "kv_check"), "cuModuleGetFunction");
  // On the kernels' own stream: the default one would not be waited for by them.
  check(cuMemsetD8Async(counters_.address(), 0, sizeof(Counters), device_.stream()),
        "cuMemsetD8Async");
}

Model::~Model() {
  cuStreamSynchronize(device_.stream());
  cuModuleUnload(module_);
}

void Model::upload(std::optional<DeviceBuffer>& buffer, const void* data, std::size_t bytes) {
  if (!buffer || buffer->bytes() < bytes) {
    buffer.reset();
    buffer.emplace(bytes + bytes / 2);
  }
  check(cuMemcpyHtoDAsync(buffer->address(), data, bytes, device_.stream()), "cuMemcpyHtoDAsync");
}

void Model::launch(const Plan& plan) {
  if (plan.writes.empty() && plan.checks.empty()) {
    return;
  }
  device_.synchronize();
  staged_ = plan.writes;
  staged_.insert(staged_.end(), plan.checks.begin(), plan.checks.end());
  upload(spans_, staged_.data(), staged_.size() * sizeof(Span));
  upload(tables_, plan.tables.data(), plan.tables.size() * sizeof(BlockNumber));
  CUdeviceptr writes = spans_->address();
  CUdeviceptr checks = writes + plan.writes.size() * sizeof(Span);
  CUdeviceptr tables = tables_->address();
  CUdeviceptr counters = counters_.address();
  auto row_words = static_cast<std::uint32_t>(shape_.row_bytes() / sizeof(std::uint32_t));
  const auto run = [&](CUfunction kernel, CUdeviceptr& first, std::size_t count,
                       std::uint32_t layer) {
    if (count == 0) {
      return;
    }
    CUdeviceptr keys = buffers_[std::size_t{2} * layer].address();
    CUdeviceptr values = buffers_[std::size_t{2} * layer + 1].address();
    std::array<void*, 8> arguments{
        &keys, &values, &first, &tables, &layer, &shape_.block_tokens, &row_words, &counters};
    check(cuLaunchKernel(kernel, static_cast<unsigned>(count), 1, 1, kThreads, 1, 1, 0,
                         device_.stream(), arguments.data(), nullptr),
          "cuLaunchKernel");
  };
  for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
    run(write_, writes, plan.writes.size(), layer);
    run(check_, checks, plan.checks.size(), layer);
  }
}

Counters Model::counters() {
  device_.synchronize();
  Counters counters{};
  check(cuMemcpyDtoH(&counters, counters_.address(), sizeof counters), "cuMemcpyDtoH");
  return counters;
}

}  // namespace kvcached::engine
