#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/engine/kernel_args.h"
#include "bench/engine/scheduler.hpp"

namespace kvcached::engine {

/// A driver call that failed; what() names call and error.
class GpuError : public std::runtime_error {
 public:
  GpuError(const char* call, CUresult error);
};

struct ModelShape {
  std::uint32_t layers;
  std::uint32_t kv_heads;
  std::uint32_t head_dim;
  std::uint32_t block_tokens;

  static constexpr std::uint32_t kBytesPerElement = 2;
  [[nodiscard]] std::uint32_t row_bytes() const { return kv_heads * head_dim * kBytesPerElement; }
  [[nodiscard]] std::uint64_t block_bytes() const {
    return std::uint64_t{row_bytes()} * block_tokens;
  }
  /// K and V of all layers.
  [[nodiscard]] std::uint64_t whole_block_bytes() const { return block_bytes() * 2 * layers; }
};

/// Plain device memory, freed with the object.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;

  [[nodiscard]] CUdeviceptr address() const { return address_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  CUdeviceptr address_ = 0;
  std::size_t bytes_;
};

/// The device's primary context, current to the thread that made it, with one stream.
class Device {
 public:
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] std::string name() const;
  [[nodiscard]] CUstream stream() const { return stream_; }
  void synchronize();

 private:
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
};

/// Runs plans on the paged K and V of all layers.
class Model {
 public:
  /// `buffers` holds K, V, K, V, … in the order of layers; they and the device must outlive it.
  Model(Device& device, const ModelShape& shape, const std::vector<DeviceBuffer>& buffers);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// Launches one step and returns at once. Waits for the step before; the plan stays unchanged
  /// until this one is done.
  void launch(const Plan& plan);
  /// Waits for all launched steps.
  Counters counters();

 private:
  void upload(std::optional<DeviceBuffer>& buffer, const void* data, std::size_t bytes);

  Device& device_;
  ModelShape shape_;
  const std::vector<DeviceBuffer>& buffers_;
  CUmodule module_ = nullptr;
  CUfunction write_ = nullptr;
  CUfunction check_ = nullptr;
  DeviceBuffer counters_;
  std::vector<Span> staged_;
  std::optional<DeviceBuffer> spans_;
  std::optional<DeviceBuffer> tables_;
};

}  // namespace kvcached::engine
