"""The GPU from outside, by NVML: its name, the memory in use on all of it, and by which process."""
import ctypes
import threading
import time

from . import processes

MIB = 1 << 20
LIBRARIES = ("libnvidia-ml.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1")


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong),
                ("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint)]


MOST_PROCESSES = 64
NOT_AVAILABLE = (1 << 64) - 1


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

    def processes_mib(self):
        """{process: MiB, or None where the driver does not tell}. The numbers may be those of
        another name space than ours."""
        count, found = ctypes.c_uint(MOST_PROCESSES), (_Process * MOST_PROCESSES)()
        if self.nvml is None or self.nvml.nvmlDeviceGetComputeRunningProcesses_v3(
                self.device, ctypes.byref(count), found) != 0:
            return {}
        return {p.pid: None if p.used in (0, NOT_AVAILABLE) else p.used / MIB
                for p in found[:count.value]}

    def wait_until_free(self, baseline, limit=20.0):
        """Memory of engines that have ended comes back a moment later."""
        end = time.monotonic() + limit
        while baseline is not None and time.monotonic() < end:
            used = self.used_mib()
            if used is None or used <= baseline + 64:
                return
            time.sleep(0.1)


class Watch:
    """Samples the memory of each process on the GPU, in a thread."""

    def __init__(self, gpu, every=0.1):
        self.gpu = gpu
        self.every = every
        self.sessions = []  # of the engines
        self.samples = []   # (time.time(), {process: MiB or None})
        self.before = frozenset()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        if self.gpu.used_mib() is not None:
            self.before = frozenset(self.gpu.processes_mib())
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        if self.thread.ident:
            self.thread.join()

    def _sample(self):
        while not self.stopped.wait(self.every):
            self.samples.append((time.time(), self.gpu.processes_mib()))

    def owners(self):
        """{process on the GPU now: session}. Where the numbers are another name space's, both name
        spaces count up as processes start, so that the order tells: each engine has one there."""
        now = sorted(set(self.samples[-1][1]) - self.before) if self.samples else []
        ours = {pid: processes.session_of(pid) for pid in now}
        if all(session in self.sessions for session in ours.values()):
            return ours
        cores = sorted((core.pid, session) for session in self.sessions
                       if (core := processes.engine_core(session)))
        return dict(zip(now, (session for _, session in cores))) if len(now) == len(cores) else {}

    def of(self, session):
        """An engine's memory as (time, MiB); nothing where the driver does not tell."""
        mine = [pid for pid, owner in self.owners().items() if owner == session]
        told = [(at, [sizes.get(pid, 0) for pid in mine]) for at, sizes in list(self.samples)]
        return [(at, sum(sizes)) for at, sizes in told if mine and None not in sizes]


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
            entry["curve"] = [(round(at - begin, 2), round(used, 1)) for at, used in during[::2]]
            above = [at for at, used in during if used > last + 64]
            entry["settled_s"] = round(above[-1] - begin, 2) if above else 0.0
    return found


def at(samples, moment):
    """MiB at a moment; None before the first sample."""
    seen = [used for when, used in samples if when <= moment]
    return round(seen[-1], 1) if seen else None
