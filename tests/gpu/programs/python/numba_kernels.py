"""Numba's kernels and its own view of the driver."""

import numpy

if not hasattr(numpy, "row_stack"):
    numpy.row_stack = numpy.vstack  # numba-cuda asks for a name that NumPy has no more
from common import show
from numba import cuda


@cuda.jit
def add(a, b, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = a[i] + b[i] * 2


@cuda.jit
def table(out, rows):
    i = cuda.grid(1)
    if i < out.shape[1]:
        for r in range(rows):
            out[r, i] = r * 1000003 + i


n = 3 << 20
a = numpy.arange(n, dtype=numpy.float32)
on_device = cuda.to_device(a)
out = cuda.device_array_like(a)
add[(n + 255) // 256, 256](on_device, on_device, out)
show("add", out.copy_to_host())
stream = cuda.stream()
with cuda.pinned(a):
    again = cuda.to_device(a, stream=stream)
    add[(n + 255) // 256, 256, stream](again, on_device, out)
    stream.synchronize()
show("stream", out.copy_to_host())
rows = cuda.device_array((6, 1 << 20), dtype=numpy.int32)
table[(1 << 20) // 256, 256](rows, 6)
show("table", rows.copy_to_host())
context = cuda.current_context()
print("memory", context.get_memory_info().total > 0)
with cuda.defer_cleanup():
    del again, on_device
show("rest", out.copy_to_host())
