// link: -lcuda
// Gives the GPU work of every shape, each time with three fresh buffers, and says how many MiB of
// each are backed afterwards: "NAME result: a b c".
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "shim/driver/cuda_abi.hpp"
#include "shim/include/kvcached.h"

namespace {

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kSize = 8 * kMiB;

constexpr const char* kCode = R"(
.version 7.0
.target sm_52
.address_size 64
.visible .entry by_pointer(.param .u32 count, .param .u64 to) { ret; }
.visible .entry by_structure(.param .align 8 .b8 all[24]) { ret; }
.visible .entry ignores(.param .align 8 .b8 all[24]) { ret; }
.visible .entry of_nothing() { ret; }
)";

struct Structure {
  std::uint32_t small[4];
  CUdeviceptr to;
};

CUcontext context;
CUdeviceptr a, b, c;
CUstream stream;
CUmodule module;
CUlibrary library;
unsigned char host[2 * kMiB];

void fresh() {
  cuMemAlloc_v2(&a, kSize);
  cuMemAlloc_v2(&b, kSize);
  cuMemAlloc_v2(&c, kSize);
}

std::size_t backed(CUdeviceptr at) {
  std::size_t bytes = 0;
  kvcached_resident(at, 0, kSize, &bytes);
  return bytes / kMiB;
}

template <class F>
void step(const char* name, F work) {
  fresh();
  const int result = work();
  const std::size_t of_a = backed(a);
  const std::size_t of_b = backed(b);
  const std::size_t of_c = backed(c);
  const int done = cuCtxSynchronize();
  std::printf("%s %d: %zu %zu %zu\n", name, result != 0 ? result : done, of_a, of_b, of_c);
  for (const CUdeviceptr at : {a, b, c}) cuMemFree_v2(at);
}

CUfunction function(const char* name) {
  CUfunction found = nullptr;
  cuModuleGetFunction(&found, module, name);
  return found;
}

CUkernel kernel(const char* name) {
  CUkernel found = nullptr;
  cuLibraryGetKernel(&found, library, name);
  return found;
}

int launch(CUfunction which, void** parameters, void** extra = nullptr) {
  return cuLaunchKernel(which, 1, 1, 1, 1, 1, 1, 0, stream, parameters, extra);
}

void copies() {
  step("fill", [] { return cuMemsetD8_v2(a + 3 * kMiB, 1, kMiB); });
  step("fill_async", [] { return cuMemsetD32Async(b + 4 * kMiB, 1, kMiB, stream); });
  step("fill_rows", [] { return cuMemsetD2D16_v2(a, kMiB, 1, 16, 4); });
  step("into", [] { return cuMemcpyHtoD_v2(b, host, 1); });
  step("out_of", [] { return cuMemcpyDtoHAsync_v2(host, c + kMiB, 2 * kMiB, stream); });
  step("between", [] { return cuMemcpyDtoD_v2(a, c + 6 * kMiB, 2 * kMiB); });
  step("any", [] { return cuMemcpyAsync(a + 1, b + 2 * kMiB + 1, 2 * kMiB, stream); });
  step("peer", [] { return cuMemcpyPeer(a, context, c, context, kMiB); });
  step("rows", [] {
    CUDA_MEMCPY2D rows{};
    rows.srcMemoryType = CU_MEMORYTYPE_HOST;
    rows.srcHost = host;
    rows.srcPitch = 64;
    rows.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    rows.dstDevice = b;
    rows.dstPitch = kMiB;
    rows.dstY = 2;
    rows.WidthInBytes = 64;
    rows.Height = 3;
    return cuMemcpy2D_v2(&rows);
  });
  // The simulated GPU cannot do these; what they touch is known before it says so.
  step("box", [] {
    CUDA_MEMCPY3D box{};
    box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    box.srcDevice = a;
    box.srcPitch = kMiB;
    box.srcHeight = 2;
    box.srcZ = 1;
    box.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    box.dstDevice = c;
    box.WidthInBytes = 8;
    box.Height = 1;
    box.Depth = 2;
    cuMemcpy3D_v2(&box);
    return 0;
  });
  step("batch", [] {
    CUdeviceptr to[] = {a, b + 2 * kMiB};
    CUdeviceptr from[] = {c, c + 4 * kMiB};
    std::size_t bytes[] = {8, 8};
    cuMemcpyBatchAsync_v2(to, from, bytes, 2, nullptr, nullptr, 0, stream);
    return 0;
  });
  step("word", [] {
    cuStreamWriteValue32_v2(stream, b + 4 * kMiB, 1, 0);
    return 0;
  });
  // Zero, as memory is that nothing was written to, is what these wait for.
  step("word_waited",
       [] { return cuStreamWaitValue32_v2(stream, c + 2 * kMiB, 0, CU_STREAM_WAIT_VALUE_EQ); });
  step("long_word_waited",
       [] { return cuStreamWaitValue64_v2(stream, a + 4 * kMiB, 0, CU_STREAM_WAIT_VALUE_EQ); });
  step("unknown", [] {
    cuMemBatchDecompressAsync(nullptr, 0, 0, nullptr, stream);
    return 0;
  });
}

void launches() {
  std::uint32_t count = 1;
  step("pointer", [&] {
    CUdeviceptr to = b + 5 * kMiB + 3;
    void* parameters[] = {&count, &to};
    return launch(function("by_pointer"), parameters);
  });
  step("structure", [&] {
    Structure all{{1, 2, 3, 4}, c};
    void* parameters[] = {&all};
    return launch(function("by_structure"), parameters);
  });
  step("end_of", [&] {
    // One past the last byte is in no buffer but, if at all, in the next.
    Structure all{{}, 0};
    void* parameters[] = {&all};
    all.to = (a > b && a > c ? a : b > c ? b : c) + kSize;
    return launch(function("ignores"), parameters);
  });
  step("packed", [&] {
    struct {
      std::uint32_t count;
      CUdeviceptr to;
    } all{1, a};
    std::size_t bytes = sizeof(all);
    void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &all, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                     CU_LAUNCH_PARAM_END};
    return launch(function("by_pointer"), nullptr, extra);
  });
  step("kernel_handle", [&] {
    void* parameters[] = {&count, &b};
    return launch(reinterpret_cast<CUfunction>(kernel("by_pointer")), parameters);
  });
  step("cooperative", [&] {
    void* parameters[] = {&count, &c};
    return cuLaunchCooperativeKernel(function("by_pointer"), 1, 1, 1, 1, 1, 1, 0, stream,
                                     parameters);
  });
  step("ex", [&] {
    CUlaunchConfig config{};
    config.gridDimX = config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = config.blockDimY = config.blockDimZ = 1;
    config.hStream = stream;
    void* parameters[] = {&count, &a};
    return cuLaunchKernelEx(&config, function("by_pointer"), parameters, nullptr);
  });
  step("without", [&] { return launch(function("of_nothing"), nullptr); });
  step("whole_by_parts", [&] {
    for (std::size_t at = 0; at < kSize; at += 2 * kMiB) cuMemsetD8Async(b + at, 1, 1, stream);
    void* parameters[] = {&count, &b};
    return launch(function("by_pointer"), parameters);
  });
}

CUDA_KERNEL_NODE_PARAMS_v2 one_thread(void** parameters) {
  CUDA_KERNEL_NODE_PARAMS_v2 node{};
  node.gridDimX = node.gridDimY = node.gridDimZ = 1;
  node.blockDimX = node.blockDimY = node.blockDimZ = 1;
  node.kernelParams = parameters;
  return node;
}

void graphs() {
  std::uint32_t count = 1;
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  const auto launch_graph = [&] {
    cuGraphInstantiateWithFlags(&exec, graph, 0);
    const int result = cuGraphLaunch(exec, stream);
    cuCtxSynchronize();
    cuGraphExecDestroy(exec);
    cuGraphDestroy(graph);
    return result;
  };
  step("captured", [&] {
    void* parameters[] = {&count, &b};
    cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    launch(function("by_pointer"), parameters);
    cuMemsetD8Async(c + 2 * kMiB, 1, kMiB, stream);
    cuStreamEndCapture(stream, &graph);
    return launch_graph();
  });
  step("node", [&] {
    void* parameters[] = {&count, &a};
    CUDA_KERNEL_NODE_PARAMS_v2 node = one_thread(parameters);
    node.func = function("by_pointer");
    CUgraphNode made = nullptr;
    cuGraphCreate(&graph, 0);
    cuGraphAddKernelNode_v2(&made, graph, nullptr, 0, &node);
    return launch_graph();
  });
  step("node_changed", [&] {
    void* parameters[] = {&count, &a};
    CUDA_KERNEL_NODE_PARAMS_v2 node = one_thread(parameters);
    node.kern = kernel("by_pointer");
    CUgraphNode made = nullptr;
    cuGraphCreate(&graph, 0);
    cuGraphAddKernelNode_v2(&made, graph, nullptr, 0, &node);
    cuGraphInstantiateWithFlags(&exec, graph, 0);
    parameters[1] = &c;
    cuGraphExecKernelNodeSetParams_v2(exec, made, &node);
    const int result = cuGraphLaunch(exec, stream);
    cuCtxSynchronize();
    cuGraphExecDestroy(exec);
    cuGraphDestroy(graph);
    return result;
  });
  step("fill_node", [&] {
    CUDA_MEMSET_NODE_PARAMS_v1 fill{b, 0, 1, 4, kMiB, 1};
    cuGraphAddMemsetNode(nullptr, nullptr, nullptr, 0, &fill, context);
    return 0;
  });
  step("any_node", [&] {
    CUgraphNodeParams any{};
    any.type = CU_GRAPH_NODE_TYPE_MEMCPY;
    any.memcpy.copyParams.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    any.memcpy.copyParams.dstDevice = c + 2 * kMiB;
    any.memcpy.copyParams.WidthInBytes = any.memcpy.copyParams.Height =
        any.memcpy.copyParams.Depth = 1;
    cuGraphAddNode_v2(nullptr, nullptr, nullptr, nullptr, 0, &any);
    return 0;
  });
}

// The simulated GPU makes none of these, which are asked for as far as the library reads them.
void descriptors() {
  const auto at = [](CUdeviceptr address) { return reinterpret_cast<void*>(address); };
  CUtensorMap map{};
  step("tensor_map", [&] {
    cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at(a + kMiB), nullptr, nullptr,
                           nullptr, nullptr, CU_TENSOR_MAP_INTERLEAVE_NONE,
                           CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                           CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return 0;
  });
  step("tensor_map_moved", [&] {
    cuTensorMapReplaceAddress(&map, at(c));
    return 0;
  });
  const auto texture = [](const CUDA_RESOURCE_DESC& resource) {
    CUtexObject object = 0;
    cuTexObjectCreate(&object, &resource, nullptr, nullptr);
    return 0;
  };
  step("texture", [&] {
    CUDA_RESOURCE_DESC resource{};
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear.devPtr = b;
    return texture(resource);
  });
  step("texture_rows", [&] {
    CUDA_RESOURCE_DESC resource{};
    resource.resType = CU_RESOURCE_TYPE_PITCH2D;
    resource.res.pitch2D.devPtr = c;
    return texture(resource);
  });
  step("texture_of_array", [&] {
    CUDA_RESOURCE_DESC resource{};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = reinterpret_cast<CUarray>(a);
    return texture(resource);
  });
}

}  // namespace

int main() {
  cuInit(0);
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxSetCurrent(context);
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  const int loaded = cuModuleLoadData(&module, kCode);
  std::printf("module %d library %d\n", loaded,
              cuLibraryLoadData(&library, kCode, nullptr, nullptr, 0, nullptr, nullptr, 0));
  copies();
  launches();
  graphs();
  descriptors();
  return 0;
}
