"""NVIDIA's own Python bindings: the driver's calls, kernels by NVRTC, launches by their addresses."""

import numpy
from common import show
from cuda.bindings import driver, nvrtc


def must(answer):
    result, *values = answer
    if int(result) != 0:
        raise SystemExit(f"{result}")
    return values[0] if len(values) == 1 else values


SOURCE = rb"""
extern "C" __global__ void twice(unsigned* at, unsigned long long n) {
  for (unsigned long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    at[i] = at[i] * 2 + (unsigned)i;
}"""
must(driver.cuInit(0))
device = must(driver.cuDeviceGet(0))
context = must(driver.cuDevicePrimaryCtxRetain(device))
must(driver.cuCtxSetCurrent(context))
program = must(nvrtc.nvrtcCreateProgram(SOURCE, b"twice.cu", 0, [], []))
must(nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=sm_90"]))
cubin = b" " * must(nvrtc.nvrtcGetCUBINSize(program))
must(nvrtc.nvrtcGetCUBIN(program, cubin))
kernel = must(driver.cuModuleGetFunction(must(driver.cuModuleLoadData(cubin)), b"twice"))
n = 4 << 20
pointer = must(driver.cuMemAlloc(4 * n))
must(driver.cuMemsetD32(pointer, 3, n))
arguments = numpy.array([int(pointer), n], dtype=numpy.uint64)
pointers = numpy.array([arguments[i : i + 1].ctypes.data for i in range(2)], dtype=numpy.uint64)
for _ in range(3):
    must(driver.cuLaunchKernel(kernel, 64, 1, 1, 256, 1, 1, 0, 0, pointers.ctypes.data, 0))
host = numpy.zeros(n, dtype=numpy.uint32)
must(driver.cuMemcpyDtoH(host.ctypes.data, pointer, 4 * n))
show("twice", host)
base, size = must(driver.cuMemGetAddressRange(int(pointer) + 4096))
print("range", int(base) == int(pointer), size)
kind = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
print("type", must(driver.cuPointerGetAttribute(kind, pointer)))
must(driver.cuMemFree(pointer))
print("free again", int(driver.cuMemFree(pointer)[0]))
must(driver.cuDevicePrimaryCtxRelease(device))
