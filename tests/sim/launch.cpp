// Kernel launches.
#include <cstring>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/graph.hpp"
#include "tests/sim/module.hpp"

namespace sim {
namespace {

constexpr unsigned kMostThreads = 1024;
constexpr unsigned kMostShared = 232448;

/// The arguments of one launch, copied: the program's may go when the call returns.
struct Arguments {
  std::vector<std::byte> bytes;
  std::vector<void*> places;
};

std::size_t parameter_bytes(const Kernel& kernel) {
  if (kernel.parameters.empty()) return 0;
  return kernel.parameters.back().offset + kernel.parameters.back().bytes;
}

/// CU_LAUNCH_PARAM_BUFFER_POINTER and _SIZE; false if there is no buffer that is large enough.
bool read_buffer(void** extra, std::size_t wanted, std::vector<std::byte>& out) {
  const void* buffer = nullptr;
  std::size_t size = 0;
  for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      buffer = extra[1];
    } else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) {
      size = *static_cast<const std::size_t*>(extra[1]);
    } else {
      return false;
    }
  }
  if (size < wanted || (buffer == nullptr && wanted != 0)) return false;
  if (wanted != 0) std::memcpy(out.data(), buffer, wanted);
  return true;
}

CUresult copy_arguments(const Kernel& kernel, void** parameters, void** extra, Arguments& out) {
  const std::size_t size = parameter_bytes(kernel);
  out.bytes.resize(size);
  if (parameters != nullptr) {
    for (std::size_t i = 0; i < kernel.parameters.size(); ++i) {
      const Parameter& parameter = kernel.parameters[i];
      std::memcpy(out.bytes.data() + parameter.offset, parameters[i], parameter.bytes);
    }
  } else if (extra != nullptr) {
    if (!read_buffer(extra, size, out.bytes)) return CUDA_ERROR_INVALID_VALUE;
  } else if (size != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (const Parameter& parameter : kernel.parameters) {
    out.places.push_back(out.bytes.data() + parameter.offset);
  }
  return CUDA_SUCCESS;
}

}  // namespace

CUresult kernel_work(CUfunction function, const sim_launch& shape, void** parameters, void** extra,
                     Work& out) {
  KernelHandle found = find_function(function);
  if (found.kernel == nullptr) found = find_kernel(reinterpret_cast<CUkernel>(function));
  if (found.kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const std::uint64_t threads = std::uint64_t{shape.block_x} * shape.block_y * shape.block_z;
  if (threads == 0 || threads > kMostThreads || shape.shared_bytes > kMostShared ||
      std::uint64_t{shape.grid_x} * shape.grid_y * shape.grid_z == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto arguments = std::make_shared<Arguments>();
  if (const CUresult bad = copy_arguments(*found.kernel, parameters, extra, *arguments)) {
    return bad;
  }
  if (found.kernel->function == nullptr) return CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
  out = {Work::Kind::kKernel,
         [found, shape, arguments] { found.kernel->function(&shape, arguments->places.data()); }};
  return CUDA_SUCCESS;
}

namespace {

CUresult launch(const char* name, CUfunction function, const sim_launch& shape, CUstream handle,
                void** parameters, void** extra) {
  return enter_context(name, [&](Context& context) -> CUresult {
    Work work;
    std::shared_ptr<Stream> stream;
    if (const CUresult refused = resolve_stream(handle, context, stream)) return refused;
    if (const CUresult bad = kernel_work(function, shape, parameters, extra, work)) return bad;
    return enqueue(*stream, CU_GRAPH_NODE_TYPE_KERNEL, std::move(work));
  });
}

}  // namespace
}  // namespace sim

using namespace sim;

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        CUstream stream, void** parameters, void** extra) {
  return launch(__func__, function, {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared},
                stream, parameters, extra);
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                   unsigned grid_z, unsigned block_x, unsigned block_y,
                                   unsigned block_z, unsigned shared, CUstream stream,
                                   void** parameters) {
  return launch(__func__, function, {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared},
                stream, parameters, nullptr);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters,
                          void** extra) {
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return launch(__func__, function,
                {config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX,
                 config->blockDimY, config->blockDimZ, config->sharedMemBytes},
                config->hStream, parameters, extra);
}
