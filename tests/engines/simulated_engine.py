"""Run under the preloaded library and the simulated driver: an engine core whose KV cache is taken
with cuMemAlloc, on the library itself. Prints one line of JSON; `simulated_test.py` reads it."""
import ctypes
import json
import os
import subprocess
import sys
import time

from doubles import vllm_engine

# Blocks of 64 KiB in each layer, as a real model has them.
vllm_engine.widen(8, 128)

import worlds  # noqa: E402

BLOCKS = 4096


class Library(worlds.package.client.Library):
    """The library, and the driver as the engine's allocator."""

    def __init__(self, number=0):
        super().__init__()
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.states = []
        device, context = ctypes.c_int(), ctypes.c_void_p()
        for code in (self.cuda.cuInit(0), self.cuda.cuDeviceGet(ctypes.byref(device), number),
                     self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
                     self.cuda.cuCtxSetCurrent(context)):
            assert code == 0, code

    def allocate(self, size):
        address = ctypes.c_uint64()
        code = self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        assert code == 0, code
        # The engine's fill: work on the memory before anybody says what backs it.
        assert self.cuda.cuMemsetD8Async(address, 0, ctypes.c_size_t(size), None) == 0
        return address.value

    def report(self, adapter, state):
        self.states.append(state)
        return super().report(adapter, state)


def shown():
    """What `kvcached stat` says of this process."""
    text = subprocess.run([os.environ["KVCACHED_BUILD"] + "/kvcached", "stat", "--json"],
                          capture_output=True, text=True, check=True,
                          env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}).stdout
    return [p for pool in json.loads(text)["pools"] for p in pool["processes"]
            if p["pid"] == os.getpid()][0]


def charged():
    return shown()["charged_bytes"]


def settled(most):
    """Charged bytes once they are at most `most`, or after a while."""
    for _ in range(400):
        if charged() <= most:
            break
        time.sleep(0.05)
    return charged()


def main():
    library = Library()
    engine = worlds.Engine(library, blocks=BLOCKS, caching=False, max_num_seqs=64, budget=2048)
    small = 64 << 20
    result = {"full": BLOCKS * vllm_engine.PAGE * vllm_engine.LAYERS, "idle": settled(small),
              "peaks": [], "after": []}
    for burst in range(3):
        peak = steps = 0
        for i in range(40):
            engine.add("b%d/%d" % (burst, i), range(i, i + 200), 60)
        while engine.busy():
            engine.step()
            engine.check()
            steps += 1
            if steps % 16 == 4:
                peak = max(peak, charged())
        result["peaks"].append(peak)
        result["after"].append(settled(small))
    result["finished"] = sum(len(tokens) == 60 for tokens in engine.outputs.values())
    result["states"] = library.states
    result["shown"] = shown()["adapter_state"]
    print(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
