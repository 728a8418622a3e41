"""The GPU from outside: its name, and the memory in use on all of it, by NVML."""
import ctypes
import threading
import time

MIB = 1 << 20
LIBRARIES = ("libnvidia-ml.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1")


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Gpu:
    """Without a GPU or its driver's library, everything is None."""

    def __init__(self, index=0):
        self.nvml = self.device = None
        for path in LIBRARIES:
            try:
                nvml = ctypes.CDLL(path)
                break
            except OSError:
                continue
        else:
            return
        device = ctypes.c_void_p()
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(
                index, ctypes.byref(device)) == 0:
            self.nvml, self.device = nvml, device

    def _text(self, function, *arguments):
        if self.nvml is None:
            return None
        text = ctypes.create_string_buffer(96)
        if getattr(self.nvml, function)(*arguments, text, len(text)) != 0:
            return None
        return text.value.decode(errors="replace")

    def describe(self):
        return {"gpu": self._text("nvmlDeviceGetName", self.device),
                "gpu_id": self._text("nvmlDeviceGetUUID", self.device),
                "driver": self._text("nvmlSystemGetDriverVersion")}

    def used_mib(self):
        memory = _Memory()
        if self.nvml is None or self.nvml.nvmlDeviceGetMemoryInfo(
                self.device, ctypes.byref(memory)) != 0:
            return None
        return memory.used / MIB

    def wait_until_free(self, baseline, limit=20.0):
        """Memory of engines that have ended comes back a moment later."""
        end = time.monotonic() + limit
        while baseline is not None and time.monotonic() < end:
            used = self.used_mib()
            if used is None or used <= baseline + 64:
                return
            time.sleep(0.1)


class Watch:
    """Samples the memory in use, in a thread, as (time.time(), MiB above the start)."""

    def __init__(self, gpu, every=0.05):
        self.gpu = gpu
        self.every = every
        self.before = gpu.used_mib()
        self.samples = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        if self.before is not None:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        if self.before is not None:
            self.thread.join()

    def _sample(self):
        while not self.stopped.wait(self.every):
            used = self.gpu.used_mib()
            if used is not None:
                self.samples.append((time.time(), used - self.before))


def summarize(samples, phases):
    """Memory by phase, given as (name, begin, end): the peak, what is there at its end, and, while
    nothing is asked, how it falls: pairs of seconds since the phase began and MiB."""
    found = {}
    for name, begin, end in phases:
        during = [(at, used) for at, used in samples if begin <= at <= end]
        if not during:
            continue
        peak, last = max(used for _, used in during), during[-1][1]
        entry = found.setdefault(name, {"peak_mib": 0.0})
        entry.update(peak_mib=round(max(peak, entry["peak_mib"]), 1), end_mib=round(last, 1))
        if name.startswith("idle"):
            entry["curve"] = [(round(at - begin, 2), round(used, 1)) for at, used in during[::5]]
            above = [at for at, used in during if used > last + 64]
            entry["settled_s"] = round(above[-1] - begin, 2) if above else 0.0
    return found


def at(samples, moment):
    """MiB at a moment; None before the first sample."""
    seen = [used for when, used in samples if when <= moment]
    return round(seen[-1], 1) if seen else None
