"""The driver by way of Python's ctypes, which looks every function up when it is first called."""
import ctypes

cuda = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
cuda.cuInit(0)
cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
cuda.cuCtxSetCurrent(context)
at = ctypes.c_uint64()
print("alloc", cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(8 << 20)))
handle = (ctypes.c_char * 64)()
print("elastic", int(cuda.cuIpcGetMemHandle(handle, at) == 801))
print("memset", cuda.cuMemsetD8_v2(at, ctypes.c_ubyte(7), ctypes.c_size_t(8 << 20)))
last = ctypes.c_ubyte()
print("copy", cuda.cuMemcpyDtoH_v2(ctypes.byref(last), ctypes.c_uint64(at.value + (8 << 20) - 1),
                                   ctypes.c_size_t(1)))
print("last", last.value)
print("free", cuda.cuMemFree_v2(at))
print("again", cuda.cuMemFree_v2(at))
