"""vLLM's command with a probe in the library's adapter: what each step takes in our code on the
scheduler's thread. Whenever the engine gets idle, it appends what it saw to $VLLM_ALONE_PROBED.

A process that the engine spawns comes by here, too.
"""
import json
import os
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if os.path.realpath(path) != str(HERE)]

# Where vLLM or a wrapper around a function of vLLM enters our code in the course of a step.
ENTRIES = {
    ("vllm", None): ("ahead",),
    ("vllm_cache", "Needs"): ("same",),
    ("balloon", "Balloon"): ("make_room", "settle"),
    ("striped_queue", "StripedQueue"): ("popleft", "popleft_n", "remove", "append", "append_n",
                                        "prepend_n"),
}
CALLS = ("acquire", "release", "expect", "in_use", "evicted", "pressure")


class Probe:
    def __init__(self, path):
        self.path = path
        self.thread = threading.main_thread().ident  # the scheduler's in an engine core
        self.inside = False
        self.new_step()
        self.forget()

    def new_step(self):
        self.ours = self.in_library = self.calls = 0

    def forget(self):
        self.steps = []  # [time, ns in our code, of these in the library, its calls, thread's ns]
        self.by = {}     # function: [calls, ns, ns of the longest]

    def install(self, package):
        for (module, owner), names in ENTRIES.items():
            place = getattr(package, module)
            place = getattr(place, owner) if owner else place
            for name in names:
                wrapper = self.entry(name, getattr(place, name))
                setattr(place, name, self.last(wrapper) if name == "settle" else wrapper)
        for name in CALLS:
            setattr(package.client.Cache, name,
                    self.called(name, getattr(package.client.Cache, name)))

    def entry(self, name, original):
        def wrapper(*args, **kwargs):
            if self.inside or threading.get_ident() != self.thread:
                return original(*args, **kwargs)
            self.inside, begun = True, time.perf_counter_ns()
            try:
                return original(*args, **kwargs)
            finally:
                spent = time.perf_counter_ns() - begun
                self.inside = False
                self.ours += spent
                self.count(name, spent)
        return wrapper

    def called(self, name, original):
        def wrapper(*args, **kwargs):
            if threading.get_ident() != self.thread:
                return original(*args, **kwargs)
            begun = time.perf_counter_ns()
            try:
                return original(*args, **kwargs)
            finally:
                spent = time.perf_counter_ns() - begun
                self.in_library += spent
                self.calls += 1
                self.count("library: " + name, spent)
        return wrapper

    def count(self, name, spent):
        seen = self.by.setdefault(name, [0, 0, 0])
        seen[0] += 1
        seen[1] += spent
        seen[2] = max(seen[2], spent)

    def last(self, settle):
        """The adapter's last call of a step."""
        def wrapper(balloon, idle):
            settle(balloon, idle)
            self.steps.append([time.time(), self.ours, self.in_library, self.calls,
                               time.thread_time_ns()])
            self.new_step()
            if idle:
                with open(self.path, "a") as file:
                    file.write(json.dumps({"steps": self.steps, "by": self.by}) + "\n")
                self.forget()
        return wrapper


def install():
    import vllm  # noqa: F401 (brings the adapter)
    if "_kvcached" in sys.modules:
        Probe(os.environ["VLLM_ALONE_PROBED"]).install(sys.modules["_kvcached"])


if __name__ in ("__main__", "__mp_main__"):
    install()
if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main
    main()
