#include "tests/sim/module.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <sstream>
#include <unordered_map>

#include "tests/sim/settings.hpp"

namespace sim {
namespace {

struct Modules {
  std::shared_mutex mutex;
  std::unordered_map<const void*, std::shared_ptr<Module>> all;
  std::unordered_map<const void*, KernelHandle> functions;
  std::unordered_map<const void*, KernelHandle> kernels;
};

Modules& modules() {
  static Modules& all = *new Modules;
  return all;
}

/// The libraries that have the host functions; opened once, never closed.
const std::vector<void*>& kernel_libraries() {
  static const std::vector<void*>& libraries = *new std::vector<void*>([] {
    std::vector<void*> out;
    std::istringstream paths(settings().kernels);
    for (std::string path; std::getline(paths, path, ':');) {
      if (path.empty()) continue;
      void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr) {
        out.push_back(library);
      } else {
        std::fprintf(stderr, "libcuda (simulated): SIM_GPU_KERNELS: %s\n", dlerror());
      }
    }
    return out;
  }());
  return libraries;
}

sim_kernel host_function(const std::string& name) {
  for (void* library : kernel_libraries()) {
    if (void* const found = dlsym(library, name.c_str())) {
      return reinterpret_cast<sim_kernel>(found);
    }
  }
  return nullptr;
}

}  // namespace

// The address of the kernel is its CUfunction, the one after it its CUkernel.
CUfunction function_of(Kernel& kernel) { return reinterpret_cast<CUfunction>(&kernel); }
CUkernel kernel_of(Kernel& kernel) {
  return reinterpret_cast<CUkernel>(reinterpret_cast<char*>(&kernel) + 1);
}

CUresult load_module(const void* image, bool library, std::shared_ptr<Module>& out) {
  if (image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto* const text = static_cast<const char*>(image);
  constexpr unsigned char kElf[] = {0x7f, 'E', 'L', 'F'};
  constexpr unsigned char kFatBinary[] = {0x50, 0xed, 0x55, 0xba};
  constexpr unsigned char kFatWrapper[] = {0xb1, 0x43, 0x62, 0x46};
  for (const auto* magic : {kElf, kFatBinary, kFatWrapper}) {
    if (std::memcmp(text, magic, 4) == 0) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  auto module = std::make_shared<Module>();
  module->library = library;
  if (!parse_ptx(text, module->kernels)) return CUDA_ERROR_INVALID_PTX;
  for (auto& [name, kernel] : module->kernels) {
    kernel.module = module.get();
    kernel.function = host_function(name);
  }
  out = std::move(module);
  return CUDA_SUCCESS;
}

void publish_module(const std::shared_ptr<Module>& module) {
  const std::unique_lock lock(modules().mutex);
  modules().all[module.get()] = module;
  for (auto& [name, kernel] : module->kernels) {
    modules().functions[function_of(kernel)] = {module, &kernel};
    if (module->library) modules().kernels[kernel_of(kernel)] = {module, &kernel};
  }
}

std::shared_ptr<Module> find_module(const void* handle, bool library) {
  const std::shared_lock lock(modules().mutex);
  const auto found = modules().all.find(handle);
  if (found == modules().all.end() || found->second->library != library) return nullptr;
  return found->second;
}

bool withdraw_module(const void* handle, bool library) {
  const std::shared_ptr<Module> module = find_module(handle, library);
  if (module == nullptr) return false;
  const std::unique_lock lock(modules().mutex);
  for (auto& [name, kernel] : module->kernels) {
    modules().functions.erase(function_of(kernel));
    modules().kernels.erase(kernel_of(kernel));
  }
  return modules().all.erase(handle) == 1;
}

KernelHandle find_function(CUfunction handle) {
  const std::shared_lock lock(modules().mutex);
  const auto found = modules().functions.find(handle);
  return found == modules().functions.end() ? KernelHandle{} : found->second;
}

KernelHandle find_kernel(CUkernel handle) {
  const std::shared_lock lock(modules().mutex);
  const auto found = modules().kernels.find(handle);
  return found == modules().kernels.end() ? KernelHandle{} : found->second;
}

}  // namespace sim
