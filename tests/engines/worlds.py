"""One engine for the tests of the vLLM adapter: vLLM's own scheduler, block pool and engine core
where $VLLM_SITE names an unpacked wheel, else a miniature with the same seams."""
import ctypes
import importlib
import os
import pathlib
import queue
import sys
import types

HERE = pathlib.Path(__file__).resolve().parent
ADAPTERS = HERE.parent.parent / "shim" / "adapters"
SITE = os.environ.get("VLLM_SITE", "")
BUILD = pathlib.Path(os.environ.get("KVCACHED_BUILD") or HERE.parent.parent / "build")
sys.path.insert(0, str(HERE))

from doubles import library as library_double  # noqa: E402
from doubles import vllm_engine  # noqa: E402


def load_adapters():
    """The adapters as the library starts them in a process, from their files."""
    if "_kvcached" not in sys.modules:
        sources = {path.stem: path.read_text() for path in ADAPTERS.glob("*.py")}
        code = compile(sources.pop("bootstrap"), str(ADAPTERS / "bootstrap.py"), "exec")
        exec(code, {"SOURCES": sources, "__name__": "_kvcached.bootstrap",
                    **native_types()})
    return sys.modules["_kvcached"]


def native_types():
    """The types that the library would give."""
    library = ctypes.PyDLL(str(BUILD / "tests" / "libadapter_types.so"))
    found = {}
    for name, function in (("FreeBlocks", "free_blocks"), ("Demand", "vllm_demand"),
                           ("Glance", "vllm_glance")):
        make = getattr(library, "kvcached_%s_type" % function)
        make.restype = ctypes.py_object
        found[name] = make()
    return found


def stand_in_torch():
    torch = sys.modules.get("torch") or types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(empty_cache=lambda: None, synchronize=lambda: None)
    sys.modules["torch"] = torch


if SITE:
    import wheel
    wheel.install(SITE)
    package = load_adapters()
    # In front of the finder that knows the wheel, as in a process that the library is loaded into.
    sys.meta_path.remove(package.finder)
    sys.meta_path.insert(0, package.finder)
    for name in ("vllm.v1.engine.core", *package.vllm.hooks()):
        importlib.import_module(name)
else:
    package = load_adapters()
    from doubles import miniature
    sys.modules.update(miniature.MODULES)
    for name, hook in package.vllm.hooks().items():
        if name in miniature.MODULES:
            hook(miniature.MODULES[name])
stand_in_torch()
adapter = package.vllm
PAUSE = package.balloon.PAUSE
package.balloon.PATIENCE_IDLE = 0.0
package.balloon.PAUSE = 0.0  # steps are short here: as much is handed back as steps allow


def free_queue():
    """The engine's class of free blocks."""
    return importlib.import_module("vllm.v1.core.block_pool").FreeKVCacheBlockQueue


def one_allocation():
    """Whether all layers of the engine lie in one allocation."""
    return hasattr(sys.modules.get("vllm.v1.worker.utils"), "allocate_kv_cache")


class Engine:
    """An engine core on a double of the library. The settings are those of config(). `queued`: it
    takes its requests from a queue, in which it sleeps."""

    def __init__(self, library, blocks=200, caching=True, queued=False, **settings):
        self.library = library
        self.queued = queued
        adapter.library = library
        make = self._make_wheel if SITE else self._make_miniature
        self.core = make(blocks, caching, settings)
        self.outputs = {}
        self.pool = self.core.scheduler.kv_cache_manager.block_pool

    def _make_wheel(self, blocks, caching, settings):
        self.config = vllm_engine.config(blocks, caching, **settings)
        core = vllm_engine.make(self.config, self.library,
                                input_queue=queue.Queue() if self.queued else None)
        self.steps = core.executor_double.steps
        return core

    def _make_miniature(self, blocks, caching, settings):
        miniature.library = self.library
        self.config = config = vllm_engine.config(blocks, caching, **settings)
        config.blocks, config.caching = blocks, caching
        config.budget = config.scheduler_config.max_num_batched_tokens
        config.max_num_seqs = config.scheduler_config.max_num_seqs
        config.watermark = config.scheduler_config.watermark
        module = sys.modules["vllm.v1.engine.core"]
        core = (module.EngineCoreProc if self.queued else module.EngineCore)(
            config, miniature.Runner)
        self.steps = core.steps
        return core

    @property
    def balloon(self):
        return getattr(self.pool, "_kvcached", None)

    @property
    def cache(self):
        return self.library.caches[-1]

    def add(self, name, prompt, max_tokens, priority=0):
        if not SITE:
            self.core.scheduler.waiting.append(miniature.Request(name, prompt, max_tokens))
            return
        from vllm.v1.request import Request
        sampling = vllm_engine.Loose(
            max_tokens=max_tokens, min_tokens=0, stop_token_ids=[], eos_token_id=None,
            ignore_eos=True, all_stop_token_ids=set(), extra_args=None,
            skip_reading_prefix_cache=False)
        self.core.add_request(Request(name, list(prompt), sampling, None, priority=priority,
                                      arrival_time=float(len(self.outputs)),
                                      block_hasher=self.core.request_block_hasher))

    def abort(self, name):
        if SITE:
            self.core.abort_requests([name])
        else:
            self.core.abort(name)

    def reset_prefix_cache(self):
        if SITE:
            return self.core.reset_prefix_cache()
        return self.pool.reset_prefix_cache()

    def busy(self):
        scheduler = self.core.scheduler
        if SITE:
            return bool(scheduler.has_requests() or self.core.batch_queue)
        return bool(scheduler.running or scheduler.waiting)

    def step(self):
        """One turn of the engine's loop."""
        if SITE:
            outputs, executed = self.core.step_fn()
            found = {o.request_id: o.new_token_ids for part in (outputs or {}).values()
                     for o in part.outputs}
        else:
            found, executed = self.core.step()
        self.core.post_step(executed)
        for name, tokens in found.items():
            self.outputs.setdefault(name, []).extend(tokens)

    def run(self, most=2000):
        """Until nothing is left to do."""
        for _ in range(most):
            if not self.busy():
                return
            self.step()
        raise AssertionError("the engine does not come to an end")

    def sleep(self, seconds):
        """In the queue, and through one wake, if it comes in time. True when it did."""
        try:
            message = self.core.input_queue.get(timeout=seconds)
        except queue.Empty:
            return False
        self.core._handle_client_request(*message)
        return True

    def free_blocks(self):
        found = self.pool.free_block_queue.get_all_free_blocks()
        assert len(found) == self.pool.get_num_free_blocks()
        return found

    def sinks(self):
        """Blocks that the engine took for good when it started."""
        coordinator = self.core.scheduler.kv_cache_manager.coordinator
        return [block for manager in getattr(coordinator, "single_type_managers", ())
                for block in getattr(manager, "sink_blocks", ())]

    def check(self):
        """Allocatable implies backed, and all books agree."""
        free = self.free_blocks()
        numbers = {block.block_id for block in free}
        used = {block.block_id for block in self.pool.blocks if block.ref_cnt and not block.is_null}
        used |= {block.block_id for block in self.sinks()}
        assert len(numbers) == len(free) and not numbers & used and 0 not in numbers
        assert all(not block.ref_cnt for block in free)
        total = self.pool.num_gpu_blocks - 1
        assert abs(self.pool.get_usage() - len(used) / total) < 1e-9
        balloon = self.balloon
        if balloon is None:
            assert len(numbers) + len(used) == total
            return
        held = self.check_queue(balloon.queue, used)
        aside = self.aside(balloon.queue)
        assert held == numbers | used | aside and not numbers & aside
        assert balloon.withheld == total - len(held)
        assert balloon.in_use() == len(used)
        if balloon.cache is not None and self.library.__class__ is Library and (
                not self.cache.broken):
            assert held | {0} == self.cache.live
            backed = {b for s in self.cache.backed
                      for b in range(self.cache.ranges[s][0], sum(self.cache.ranges[s]))}
            assert held <= backed

    @staticmethod
    def aside(queue):
        """The numbers of free blocks in condemned stripes."""
        return {block.block_id for stripe in range(queue.stripes) if queue.is_condemned(stripe)
                for block in queue.stack(stripe)}

    @classmethod
    def check_queue(cls, queue, used):
        """What the queue knows of its stripes is what its blocks say. Returns the blocks held."""
        held, fresh, cached_of, empty, cached_only = set(), set(), {}, set(), set()
        for stripe in range(queue.stripes):
            own = {b for first, count in queue.ranges(stripe) for b in range(first, first + count)}
            assert len(own) == queue.held(stripe) and not own & held
            assert {queue.stripe_of(number) for number in own} <= {stripe}
            held |= own
            stack = queue.stack(stripe)
            free = {block.block_id for block in stack}
            cached = {block.block_id for block in queue.cached_in(stripe, queue.size)}
            assert len(free) == len(stack) and not free & (cached | used) and not cached & used
            assert own == free | cached | (own & used)
            if queue.is_condemned(stripe):
                assert not cached
            else:
                fresh |= free
                cached_of[stripe] = cached
            if own and not own & used:
                (cached_only if cached else empty).add(stripe)
        known = set().union(*cached_of.values())
        free = queue.get_all_free_blocks()
        assert {block.block_id for block in free} == fresh | known
        assert all((block.block_hash is not None) == (block.block_id in known) for block in free)
        assert queue.empty() == sorted(empty, reverse=True)
        assert set(queue.cached_only()) == cached_only
        assert queue.cached_only_blocks() == sum(map(queue.held, cached_only))
        assert queue.fresh == len(fresh) and queue.num_free_blocks == len(fresh | known)
        assert queue.aside == len(cls.aside(queue)) and not queue.refused
        return held


Library = library_double.Library
