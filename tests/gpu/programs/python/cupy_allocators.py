"""CuPy's allocators: its pool and its figures, none, the driver's own pool, managed memory."""

import cupy
from common import show

pool = cupy.get_default_memory_pool()
held = [cupy.full((i + 1) << 20, i, dtype=cupy.uint8) for i in range(12)]
print("pool", pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks())
del held[::2]
print("pool", pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks())
pool.free_all_blocks()
print("pool", pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks())
show("held", cupy.concatenate(held))
pool.set_limit(size=1 << 28)
try:
    cupy.empty(1 << 29, dtype=cupy.uint8)
    print("no limit")
except cupy.cuda.memory.OutOfMemoryError:
    print("limit")
pool.set_limit(size=0)
del held
pool.free_all_blocks()


def work():
    a = cupy.arange(4 << 20, dtype=cupy.float32)
    b = cupy.sqrt(a) + cupy.zeros(4 << 20, dtype=cupy.float32)
    return b[::3]


cupy.cuda.set_allocator(None)
show("none", work())
cupy.cuda.set_allocator(cupy.cuda.MemoryAsyncPool().malloc)
show("async", work())
managed = cupy.cuda.MemoryPool(cupy.cuda.malloc_managed)
cupy.cuda.set_allocator(managed.malloc)
show("managed", work())
cupy.cuda.set_allocator(pool.malloc)
show("pool", work())
pointer = cupy.cuda.runtime.malloc(8 << 20)
attributes = cupy.cuda.runtime.pointerGetAttributes(pointer)
print("attributes", attributes.type, attributes.device, attributes.devicePointer == pointer)
cupy.cuda.runtime.free(pointer)
