"""torch's caching allocator: its figures, its pools, its limit, its answer when memory is out."""

import random

from common import show, torch_steady

torch = torch_steady()
random.seed(2)


def figures(what):
    stats = torch.cuda.memory_stats()
    names = ("allocated_bytes.all.current", "allocated_bytes.all.peak", "reserved_bytes.all.current",
             "segment.all.current", "active.all.current", "num_alloc_retries", "num_ooms", "num_device_alloc",
             "num_device_free")
    print(what, [stats.get(name) for name in names], flush=True)


torch.cuda.init()
figures("start")
held = {}
for i in range(400):
    if held and random.random() < 0.45:
        key = random.choice(sorted(held))
        tensor = held.pop(key)
        assert int(tensor[0]) == key % 251 and int(tensor[-1]) == key % 251, "another's memory"
    else:
        size = random.choice((1, 700, 1 << 16, 3 << 20, (5 << 20) + 3, 33 << 20))
        held[i] = torch.full((size,), i % 251, dtype=torch.uint8, device="cuda")
    if i % 100 == 99:
        figures(f"step {i}")
        torch.cuda.empty_cache()
        figures("emptied")
total = torch.zeros((), dtype=torch.int64, device="cuda")
for key in sorted(held):
    total += held[key].sum(dtype=torch.int64) * (key + 1)
print("sum", int(total))
held.clear()
torch.cuda.empty_cache()
figures("all freed")

pool = torch.cuda.MemPool()
with torch.cuda.use_mem_pool(pool):
    inside = torch.arange(1 << 22, device="cuda")
show("in a pool of its own", inside)
del inside
print("segments", len(torch.cuda.memory_snapshot()) > 0)

stream = torch.cuda.Stream()
a = torch.arange(1 << 22, device="cuda", dtype=torch.float32)
with torch.cuda.stream(stream):
    stream.wait_stream(torch.cuda.default_stream())
    b = a * 2
    a.record_stream(stream)
del a
c = torch.ones(1 << 22, device="cuda")
torch.cuda.synchronize()
show("other stream", b)
show("reused", c)

torch.cuda.set_per_process_memory_fraction(0.02)
try:
    torch.empty(4 << 30, dtype=torch.uint8, device="cuda")
    print("no limit")
except torch.OutOfMemoryError as error:
    print("limit:", type(error).__name__)
torch.cuda.set_per_process_memory_fraction(1.0)
try:
    torch.empty(1 << 42, dtype=torch.uint8, device="cuda")
    print("endless memory")
except torch.OutOfMemoryError as error:
    print("out of memory:", type(error).__name__)
show("works on", torch.ones(1 << 20, device="cuda") + 1)
figures("end")
