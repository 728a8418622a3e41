#include "bench/demo/gpu.hpp"

#include <cuda.h>
#include <dlfcn.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <fstream>

namespace kvcached::demo {
namespace {

class Driver final : public Gpu {
 public:
  bool load(const std::string& library) {
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    int count = 0;
    return handle != nullptr && find(handle, init_, "cuInit") &&
           find(handle, device_count_, "cuDeviceGetCount") &&
           find(handle, device_get_, "cuDeviceGet") &&
           find(handle, device_name_, "cuDeviceGetName") &&
           find(handle, context_retain_, "cuDevicePrimaryCtxRetain") &&
           find(handle, set_current_, "cuCtxSetCurrent") &&
           find(handle, memory_info_, "cuMemGetInfo_v2") && init_(0) == CUDA_SUCCESS &&
           device_count_(&count) == CUDA_SUCCESS && count > 0 &&
           device_get_(&device_, 0) == CUDA_SUCCESS &&
           context_retain_(&context_, device_) == CUDA_SUCCESS &&
           set_current_(context_) == CUDA_SUCCESS;
  }

  [[nodiscard]] std::string name() const override {
    std::array<char, 128> name{};
    device_name_(name.data(), static_cast<int>(name.size()), device_);
    return name.data();
  }
  [[nodiscard]] std::uint64_t used_bytes() const override {
    const Info info = read();
    return info.total - info.free;
  }
  [[nodiscard]] std::uint64_t free_bytes() const override { return read().free; }

 private:
  struct Info {
    std::size_t free;
    std::size_t total;
  };

  template <typename Function>
  static bool find(void* handle, Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(handle, name));
    return function != nullptr;
  }

  [[nodiscard]] Info read() const {
    Info info{};
    memory_info_(&info.free, &info.total);
    return info;
  }

  CUresult (*init_)(unsigned) = nullptr;
  CUresult (*device_count_)(int*) = nullptr;
  CUresult (*device_get_)(CUdevice*, int) = nullptr;
  CUresult (*device_name_)(char*, int, CUdevice) = nullptr;
  CUresult (*context_retain_)(CUcontext*, CUdevice) = nullptr;
  CUresult (*set_current_)(CUcontext) = nullptr;
  CUresult (*memory_info_)(std::size_t*, std::size_t*) = nullptr;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
};

}  // namespace

std::unique_ptr<Gpu> Gpu::open(const std::string& library) {
  auto driver = std::make_unique<Driver>();
  return driver->load(library) ? std::move(driver) : nullptr;
}

std::uint64_t available_main_memory() {
  std::ifstream file("/proc/meminfo");
  std::string field;
  std::uint64_t kib = 0;
  while (file >> field) {
    if (field == "MemAvailable:" && file >> kib) {
      return kib * 1024;
    }
  }
  return 0;
}

std::uint64_t free_space(const std::filesystem::path& folder) {
  struct statvfs info {};
  if (access(folder.c_str(), W_OK) != 0 || statvfs(folder.c_str(), &info) != 0) {
    return 0;
  }
  return std::uint64_t{info.f_bavail} * info.f_frsize;
}

}  // namespace kvcached::demo
