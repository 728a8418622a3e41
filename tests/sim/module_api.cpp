// Modules and libraries, and what can be asked of their kernels.
#include <cstring>
#include <fstream>
#include <sstream>

#include "tests/sim/call.hpp"
#include "tests/sim/module.hpp"

namespace sim {
namespace {

template <class Handle>
CUresult load(const char* name, Handle* out, const void* image) {
  return enter_context(name, [&](Context&) -> CUresult {
    constexpr bool kLibrary = std::is_same_v<Handle, CUlibrary>;
    std::shared_ptr<Module> module;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult bad = load_module(image, kLibrary, module)) return bad;
    publish_module(module);
    *out = reinterpret_cast<Handle>(module.get());
    return CUDA_SUCCESS;
  });
}

template <class Handle>
CUresult load_file(const char* name, Handle* out, const char* path) {
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::ifstream file(path);
  if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
  std::ostringstream text;
  text << file.rdbuf();
  return load(name, out, text.str().c_str());
}

CUresult parameter_info(const Kernel* kernel, std::size_t index, std::size_t* offset,
                        std::size_t* bytes) {
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (offset == nullptr || index >= kernel->parameters.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = kernel->parameters[index].offset;
  if (bytes != nullptr) *bytes = kernel->parameters[index].bytes;
  return CUDA_SUCCESS;
}

CUresult attribute(const Kernel* kernel, CUfunction_attribute which, int* value) {
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (value == nullptr || which < 0 || which >= CU_FUNC_ATTRIBUTE_MAX) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = 1024;
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = 32;
      break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = 90;
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = 49152;
      break;
    default:
      *value = 0;
  }
  return CUDA_SUCCESS;
}

CUresult set_attribute(const Kernel* kernel, CUfunction_attribute which) {
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return which == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ||
                 which == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
             ? CUDA_SUCCESS
             : CUDA_ERROR_INVALID_VALUE;
}

CUresult name_of(const Kernel* kernel, const char** out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *out = kernel->name.c_str();
  return CUDA_SUCCESS;
}

CUresult blocks_per_processor(const char* name, int* blocks, CUfunction function, int threads) {
  return enter_context(name, [&](Context&) -> CUresult {
    if (blocks == nullptr || threads <= 0 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    if (find_function(function).kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *blocks = std::min(32, 2048 / threads);
    return CUDA_SUCCESS;
  });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuModuleLoad(CUmodule* module, const char* path) {
  return load_file(__func__, module, path);
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return load(__func__, module, image);
}

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned /*count*/,
                            CUjit_option* /*options*/, void** /*values*/) {
  return load(__func__, module, image);
}

CUresult cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  return load(__func__, module, image);
}

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option* /*options*/,
                           void** /*values*/, unsigned /*count*/, CUlibraryOption* /*choices*/,
                           void** /*choice_values*/, unsigned /*choice_count*/) {
  return load(__func__, library, code);
}

CUresult cuLibraryLoadFromFile(CUlibrary* library, const char* path, CUjit_option* /*options*/,
                               void** /*values*/, unsigned /*count*/, CUlibraryOption* /*choices*/,
                               void** /*choice_values*/, unsigned /*choice_count*/) {
  return load_file(__func__, library, path);
}

CUresult cuModuleUnload(CUmodule module) {
  return enter_context(__func__, [&](Context&) {
    return withdraw_module(module, false) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult cuLibraryUnload(CUlibrary library) {
  return enter(__func__, [&] {
    return withdraw_module(library, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  return enter(__func__, [&]() -> CUresult {
    if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *mode = CU_MODULE_EAGER_LOADING;
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (function == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const std::shared_ptr<Module> module = find_module(handle, false);
    if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const auto found = module->kernels.find(name);
    if (found == module->kernels.end()) return CUDA_ERROR_NOT_FOUND;
    *function = function_of(found->second);
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr* /*address*/, size_t* /*bytes*/, CUmodule handle,
                              const char* /*name*/) {
  return enter_context(__func__, [&](Context&) {
    return find_module(handle, false) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_NOT_FOUND;
  });
}

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary handle, const char* name) {
  return enter(__func__, [&]() -> CUresult {
    if (kernel == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const std::shared_ptr<Module> library = find_module(handle, true);
    if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const auto found = library->kernels.find(name);
    if (found == library->kernels.end()) return CUDA_ERROR_NOT_FOUND;
    *kernel = kernel_of(found->second);
    return CUDA_SUCCESS;
  });
}

CUresult cuKernelGetFunction(CUfunction* function, CUkernel handle) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    const KernelHandle found = find_kernel(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (found.kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *function = function_of(*found.kernel);
    return CUDA_SUCCESS;
  });
}

CUresult cuFuncGetModule(CUmodule* module, CUfunction handle) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    const KernelHandle found = find_function(handle);
    if (module == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (found.kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *module = reinterpret_cast<CUmodule>(found.module.get());
    return CUDA_SUCCESS;
  });
}

CUresult cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset, size_t* bytes) {
  return enter(__func__,
               [&] { return parameter_info(find_function(handle).kernel, index, offset, bytes); });
}

CUresult cuKernelGetParamInfo(CUkernel handle, size_t index, size_t* offset, size_t* bytes) {
  return enter(__func__,
               [&] { return parameter_info(find_kernel(handle).kernel, index, offset, bytes); });
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction handle) {
  return enter_context(
      __func__, [&](Context&) { return attribute(find_function(handle).kernel, which, value); });
}

CUresult cuKernelGetAttribute(int* value, CUfunction_attribute which, CUkernel handle,
                              CUdevice /*device*/) {
  return enter(__func__, [&] { return attribute(find_kernel(handle).kernel, which, value); });
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute which, int /*value*/) {
  return enter_context(
      __func__, [&](Context&) { return set_attribute(find_function(handle).kernel, which); });
}

CUresult cuKernelSetAttribute(CUfunction_attribute which, int /*value*/, CUkernel handle,
                              CUdevice /*device*/) {
  return enter(__func__, [&] { return set_attribute(find_kernel(handle).kernel, which); });
}

CUresult cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache /*config*/) {
  return enter_context(__func__, [&](Context&) {
    return find_function(handle).kernel == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  });
}

CUresult cuFuncGetName(const char** name, CUfunction handle) {
  return enter(__func__, [&] { return name_of(find_function(handle).kernel, name); });
}

CUresult cuKernelGetName(const char** name, CUkernel handle) {
  return enter(__func__, [&] { return name_of(find_kernel(handle).kernel, name); });
}

CUresult cuFuncLoad(CUfunction handle) {
  return enter_context(__func__, [&](Context&) {
    return find_function(handle).kernel == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  });
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction handle) {
  return enter_context(__func__, [&](Context&) -> CUresult {
    if (state == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (find_function(handle).kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return CUDA_SUCCESS;
  });
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads,
                                                     size_t /*shared*/) {
  return blocks_per_processor(__func__, blocks, function, threads);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction function,
                                                              int threads, size_t /*shared*/,
                                                              unsigned /*flags*/) {
  return blocks_per_processor(__func__, blocks, function, threads);
}
