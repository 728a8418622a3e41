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
sys.path.append(str(HERE.parent))
from vllm_alone import shadow_queue  # noqa: E402
sys.path.pop()

# Where vLLM or a wrapper around a function of vLLM enters our code in the course of a step.
ENTRIES = {
    ("vllm", None): ("prepare", "after_step"),
    ("balloon", "Balloon"): ("glance", "make_room"),
    ("striped_queue", "StripedQueue"): ("popleft", "popleft_n", "remove", "append", "append_n",
                                        "prepend_n"),
}
CALLS = ("acquire", "release", "expect", "in_use", "evicted")
# What stock's queue of free blocks is asked for beside ours. What puts a single block back into use
# is taken as one more that is handed out.
TAKING, FREEING = ("popleft", "popleft_n", "remove"), ("append", "append_n", "prepend_n")
EMPTY_CALLS = 2000  # to see what the probe itself takes


class Probe:
    def __init__(self, path):
        self.path = path
        self.thread = threading.main_thread().ident  # the scheduler's in an engine core
        self.inside = False
        self.shadow = None
        self.new_step()
        self.forget()
        empty = self.entry("empty", lambda: None)
        for _ in range(EMPTY_CALLS):
            empty()
        self.empty_ns = self.by["empty"][1] / EMPTY_CALLS
        self.new_step()
        self.forget()

    def new_step(self):
        self.ours = self.in_library = self.calls = self.entries = 0

    def forget(self):
        # [time, ns in our code, of these in the library, its calls, thread's ns, calls of ours, ns
        # that stock's queue takes for the calls of ours]
        self.steps = []
        self.by = {}     # function: [calls, ns, ns of the longest]

    def install(self, package):
        for (module, owner), names in ENTRIES.items():
            place = getattr(package, module)
            place = getattr(place, owner) if owner else place
            for name in names:
                wrapper = self.entry(name, getattr(place, name))
                if name in TAKING or name in FREEING:
                    wrapper = self.shadowed(wrapper, name in TAKING)
                setattr(place, name, self.last(wrapper) if name == "after_step" else wrapper)
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
                self.entries += 1
                self.count(name, spent)
        return wrapper

    def shadowed(self, original, takes):
        """Outside of what is counted for ours."""
        def wrapper(queue, *args):
            if self.inside or threading.get_ident() != self.thread:
                return original(queue, *args)
            found = original(queue, *args)
            blocks = found if takes and found is not None else args[0]
            blocks = blocks if isinstance(blocks, (list, tuple)) else [blocks]
            if self.shadow is None:
                module = sys.modules["vllm.v1.core.block_pool"]
                self.shadow = shadow_queue.ShadowQueue(
                    module.FreeKVCacheBlockQueue, module.KVCacheBlock, queue.size)
            (self.shadow.take if takes else self.shadow.free)(blocks)
            return found
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

    def last(self, after_step):
        """The adapter's last call of a step."""
        def wrapper(engine):
            after_step(engine)
            self.steps.append([time.time(), self.ours, self.in_library, self.calls,
                               time.thread_time_ns(), self.entries,
                               self.shadow.spent() if self.shadow else 0])
            self.new_step()
            allocation = engine._kvcached
            if allocation is not None and allocation.balloon.idle:
                with open(self.path, "a") as file:
                    file.write(json.dumps({"steps": self.steps, "by": self.by,
                                           "empty_ns": self.empty_ns}) + "\n")
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
