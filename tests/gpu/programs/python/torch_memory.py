"""What torch and NVML see of the GPU's memory; in steps of 64 MiB, above what the driver keeps itself."""

import pynvml
import torch

STEP = 64 << 20
torch.ones(1, device="cuda")
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)


def seen():
    free, total = torch.cuda.mem_get_info()
    one = pynvml.nvmlDeviceGetMemoryInfo(handle)
    two = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return {"free": free, "NVML free": one.free, "NVML used": one.used, "NVML 2 free": two.free,
            "NVML 2 used": two.used}, (total, one.total, two.total)


start, totals = seen()
print("totals", totals)


def show(what):
    now, _ = seen()
    print(what, {key: round((value - start[key]) / STEP) for key, value in now.items()}, flush=True)


a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
show("taken")
a.fill_(1)
torch.cuda.synchronize()
show("written")
b = torch.zeros(2 << 30, dtype=torch.uint8, device="cuda")
show("more")
del a
show("kept by torch")
torch.cuda.empty_cache()
show("given back")
del b
torch.cuda.empty_cache()
show("all given back")
print("utilization", 0 <= torch.cuda.utilization() <= 100)
print("allocated", torch.cuda.memory_allocated(), "reserved", torch.cuda.memory_reserved())
