#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace kvcached::demo {

/// The GPU as its driver reports it to a process of its own. It loads the driver itself, so that
/// the program starts on a machine without one.
class Gpu {
 public:
  /// A driver with at least one device, or null. `library` as for dlopen.
  static std::unique_ptr<Gpu> open(const std::string& library);
  virtual ~Gpu() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  /// Physical memory, taken by any process.
  [[nodiscard]] virtual std::uint64_t used_bytes() const = 0;
  [[nodiscard]] virtual std::uint64_t free_bytes() const = 0;
};

/// Bytes of main memory that programs can have without swapping.
std::uint64_t available_main_memory();
/// Free bytes of the file system that `folder` is on; 0 where one cannot write.
std::uint64_t free_space(const std::filesystem::path& folder);

}  // namespace kvcached::demo
