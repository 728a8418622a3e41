"""The adapter for vLLM: the seams it wraps. Releases 0.18 to 0.33 are known; what a
release has is found by looking, never by its number.

It never changes what a call means and never raises into a running engine. What it does not
recognise it leaves alone: then the KV cache is plain memory and `kvcached stat` says why.

  EngineCore.__init__                  the frame in which cache and block pool must meet
    Worker.initialize_from_config      is this an engine that we can serve?
      _allocate_kv_cache(_tensors)     tag: the tensors become elastic
      init_kv_cache(_tensors)          their views tell where blocks lie: make the cache
      allocate_kv_cache                both in one, since 0.30
    BlockPool.__init__                 withhold all blocks (balloon.py)
    KVCacheManager.__init__            what finds no room asks for more (vllm_retry.py)
  Scheduler.schedule, KVCacheManager.allocate_slots, the free queue itself: grow
  EngineCore.preprocess_add_request: a request arrives, on a thread of its own: get ready
  EngineCore.post_step: all launches of the step are out: take back
  EngineCoreProc._handle_client_request: woken without one: take back, too (vllm_idle.py)
  InputProcessor: in a front end: how long a request may be (vllm_length.py)

With several GPUs the same seams are met in different processes (vllm_group.py).
"""

import functools
import importlib
import logging
import os
import threading

from _kvcached import (client, seams, striped_queue, vllm_cache, vllm_group, vllm_idle, vllm_length,
                       vllm_retry)

# What every elastic engine runs through, in the scheduler's process and in a worker's. Of the two
# model runners only one is used.
SCHEDULER = (
    "vllm.v1.core.block_pool",
    "vllm.v1.core.kv_cache_coordinator",
    "vllm.v1.core.kv_cache_manager",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.core",
)
WORKER = ("vllm.v1.worker.gpu_worker",)
REQUIRED = SCHEDULER + WORKER
RUNNERS = (
    "vllm.v1.worker.utils",
    "vllm.v1.worker.gpu.attn_utils",
    "vllm.v1.worker.gpu_model_runner",
)
# Where the length of requests is checked, and who starts engines.
FRONT_ENDS = ("vllm.v1.engine.input_processor", "vllm.v1.engine.utils")
# Of a free queue, what only a KV connector calls; engines with one run as stock.
FOR_CONNECTORS = {"iter_blocks_after"}
NOTHING = (0, 0, vllm_cache.UNKNOWN, 0)  # is known of what a step needs

log = logging.getLogger("kvcached")


class Frame:
    """One EngineCore.__init__ under way in this thread; in a worker, its part of one."""

    def __init__(self):
        self.process = os.getpid()
        self.allocation = None  # made by the worker when this engine can be served
        self.allocating = False  # within the worker's initialize_from_config


class _Thread(threading.local):
    frame = None


thread = _Thread()
library = None  # made when the first engine comes


def the_library():
    global library
    if library is None:
        library = client.Library()
    return library


def hooks():
    return SEAMS.hooks()


def here():
    """The frame of this thread; not one from before a fork."""
    frame = thread.frame
    return frame if frame is not None and frame.process == os.getpid() else None


def current():
    """The allocation of the engine that takes its KV memory in this thread right now, or None."""
    frame = thread.frame
    return frame.allocation if frame is not None and frame.allocating else None


# ---- Where the cache comes from ----------------------------------------------------------------


def engine_core(module):
    def init(original):
        def wrapper(self, *args, **kwargs):
            outer, frame = thread.frame, Frame()
            thread.frame = frame
            frame.allocation = ranks = vllm_group.form(args, kwargs, lambda: unknown(SCHEDULER))
            try:
                original(self, *args, **kwargs)
            finally:
                thread.frame = outer
                if ranks is not None:
                    ranks.complete()
            allocation = frame.allocation
            if allocation is not None and allocation.balloon is not None:
                if not (allocation.balloon.on_demand or allocation.balloon.pinning):
                    allocation.balloon.fail(seams.Unknown("a scheduler without KVCacheManager"))
                self._kvcached, self._kvcached_rests = allocation, allocation.balloon.rests
                if ranks is not None:
                    ranks.watch(self)
                if wakes:
                    vllm_idle.watch(self, allocation.balloon, wakes, vllm_length.teller(
                        allocation) if ranks is None and allocation.registered else None)
            elif allocation is not None and allocation.elastic:
                allocation.give_up(allocation.trouble_was or "no block pool came")
                allocation.must_back()
        return wrapper

    def preprocess_add_request(original):
        def wrapper(self, request, *args, **kwargs):
            allocation = self._kvcached
            if allocation is not None:
                try:
                    allocation.balloon.arriving(len(request.prompt_token_ids or ()))
                except Exception as error:
                    allocation.balloon.blind = True
                    log.warning("kvcached: %r; growing on demand only", error)
            return original(self, request, *args, **kwargs)
        return wrapper

    def post_step(original):
        def wrapper(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            after_step(self)
            return result
        return wrapper

    def shutdown(original):
        def wrapper(self, *args, **kwargs):
            # The cache dies with its tensors, which the engine drops now.
            if self._kvcached is not None:
                self._kvcached.balloon.pool._kvcached = None
            return original(self, *args, **kwargs)
        return wrapper

    seams.wrap(module.EngineCore, {
        "__init__": (("self", "vllm_config", "executor_class"), init),
        "preprocess_add_request": (("self", "request"), preprocess_add_request),
        "post_step": (("self", "model_executed"), post_step),
        "shutdown": (("self",), shutdown),
    })
    module.EngineCore._kvcached = module.EngineCore._kvcached_rests = None
    wakes = vllm_idle.wrap(module, settle)


def after_step(engine):
    """Never raises."""
    rests = engine._kvcached_rests
    if rests is not None and not rests(engine.scheduler):
        settle(engine)


def settle(engine):
    """At a moment when the engine moves no blocks. Never raises."""
    allocation = engine._kvcached
    if allocation is not None and allocation.balloon.pool._kvcached is not None:
        try:
            rests = idle(engine.scheduler)
            allocation.balloon.settle(rests)
        except Exception as error:
            allocation.balloon.fail(error)
        else:
            if rests:
                vllm_idle.publish(engine.scheduler)


def idle(scheduler):
    """Blocks may be in use even so: an engine keeps those of attention sinks for good."""
    return not (getattr(scheduler, "running", True) or vllm_cache.waiting_queues(scheduler))


def gpu_worker(module):
    def initialize_from_config(original):
        def wrapper(self, kv_cache_config, *args, **kwargs):
            outer, frame = thread.frame, here()
            rank = None if frame is not None else vllm_group.join(self, say)
            why = refusal(self, kv_cache_config, rank)
            if why:
                say("stock: " + why)
                if rank is not None:
                    rank.not_elastic()
                return original(self, kv_cache_config, *args, **kwargs)
            if rank is not None:
                thread.frame = frame = Frame()
            frame.allocation = vllm_cache.Allocation(the_library(), self, kv_cache_config)
            frame.allocating = True
            try:
                result = original(self, kv_cache_config, *args, **kwargs)
            finally:
                frame.allocating = False
                thread.frame = outer
            frame.allocation.end(SEAMS.unknown(RUNNERS, unseen=""))
            if rank is not None:
                vllm_group.offer(rank, frame.allocation, self)
            return result
        return wrapper

    seams.wrap(module.Worker, {
        "initialize_from_config": (("self", "kv_cache_config"), initialize_from_config),
    })


def refusal(worker, kv_cache_config, rank=None):
    try:
        if rank is not None:
            return unknown(WORKER) or vllm_cache.serve(worker, kv_cache_config, rank.file.ranks)
        if here() is None:
            return "scheduler and worker are different processes"
        return unknown(REQUIRED) or vllm_cache.serve(worker, kv_cache_config)
    except Exception as error:
        return repr(error)


def unknown(names):
    """What is unknown about the modules `names`, which are loaded; "" when all are wrapped."""
    for name in names:
        importlib.import_module(name)
    return SEAMS.unknown(names)


def say(state):
    try:
        the_library().report("vllm", state)
    except Exception as error:
        log.warning("kvcached: %r", error)


def tagging(original):
    """Wraps a function that returns {layer: raw tensor}."""
    def wrapper(*args, **kwargs):
        allocation = current()
        if allocation is None:
            return original(*args, **kwargs)
        return allocation.tag(functools.partial(original, *args, **kwargs))
    return wrapper


def claiming(original):
    """Wraps a function that returns {layer: the view that kernels use}."""
    def wrapper(*args, **kwargs):
        kv_caches = original(*args, **kwargs)
        allocation = current()
        if allocation is not None:
            allocation.make_cache(kv_caches)
        return kv_caches
    return wrapper


def worker_utils(module):
    """Since 0.30 one function, for both model runners, allocates and returns the kernels' views."""
    if hasattr(module, "allocate_kv_cache"):
        seams.wrap(module, {
            "allocate_kv_cache": (("kv_cache_config",),
                                  lambda original: claiming(tagging(original))),
        })


def attn_utils(module):
    if not share_allocation(module):
        seams.wrap(module, {
            "_allocate_kv_cache": (("kv_cache_config",), tagging),
            "init_kv_cache": (("runner_kv_caches", "forward_context", "kv_cache_config"),
                              claiming),
        })


def share_allocation(module):
    """Whether a model runner uses the function that is wrapped in worker_utils."""
    if not hasattr(module, "allocate_kv_cache"):
        return False
    # It may have imported the name before this adapter came.
    utils = importlib.import_module("vllm.v1.worker.utils")
    module.allocate_kv_cache = utils.allocate_kv_cache
    return True


def model_runner_v2(module):
    # As above.
    module.init_kv_cache = importlib.import_module("vllm.v1.worker.gpu.attn_utils").init_kv_cache


def model_runner_v1(module):
    # The V1 runner first makes a small cache to measure graphs, outside of the worker's
    # initialize_from_config; that one stays plain.
    if not share_allocation(module):
        seams.wrap(module.GPUModelRunner, {
            "_allocate_kv_cache_tensors": (("self", "kv_cache_config"), tagging),
            "initialize_kv_cache_tensors": (("self", "kv_cache_config"), claiming),
        })


# ---- Where blocks move -------------------------------------------------------------------------


def block_pool(module):
    check_queue(module)

    def init(original):
        def wrapper(self, *args, **kwargs):
            original(self, *args, **kwargs)
            frame = here()
            if frame is not None and frame.allocation is not None:
                frame.allocation.meet(self)
        return wrapper

    def evict_blocks(original):
        def wrapper(self, block_ids, *args, **kwargs):
            result = original(self, block_ids, *args, **kwargs)
            balloon = self._kvcached
            if balloon is not None:
                balloon.forgotten(block_ids)
            return result
        return wrapper

    def reset_prefix_cache(original):
        def wrapper(self, *args, **kwargs):
            balloon = self._kvcached
            if balloon is None:
                return original(self, *args, **kwargs)
            total = self.num_gpu_blocks
            self.num_gpu_blocks = total - balloon.hidden()  # or they would look used
            try:
                done = original(self, *args, **kwargs)
            finally:
                self.num_gpu_blocks = total
            if done:
                try:
                    balloon.queue.forget_all()
                    balloon.settle(True)
                except Exception as error:
                    balloon.fail(error)
            return done
        return wrapper

    def get_usage(original):
        def wrapper(self):
            balloon = self._kvcached
            if balloon is None or not balloon.total:
                return original(self)
            return balloon.in_use() / balloon.total
        return wrapper

    seams.wrap(module.BlockPool, {
        "__init__": (("self", "num_gpu_blocks", "enable_caching"), init),
        "evict_blocks": (("self", "block_ids"), evict_blocks),
        "reset_prefix_cache": (("self",), reset_prefix_cache),
        "get_usage": (("self",), get_usage),
    })
    module.BlockPool._kvcached = None


def check_queue(module):
    """The striped queue can stand in for the free queue: it has all that is called on it."""
    known = {name for name in dir(striped_queue.StripedQueue) if not name.startswith("_")}
    methods = {name for name in vars(module.FreeKVCacheBlockQueue) if not name.startswith("_")}
    new = methods - known - FOR_CONNECTORS
    block = module.KVCacheBlock(1)
    if new or block.block_id != 1 or block.ref_cnt or block.block_hash is not None:
        raise seams.Unknown("the free queue %s" % sorted(new))
    seams.check(module.BlockPool, "_maybe_evict_cached_block", ("self", "block"))


def coordinator(module):
    seams.check(module.KVCacheCoordinator, "get_num_blocks_to_allocate",
                ("self", "request_id", "num_tokens"))


def scheduler(module):
    def schedule(original):
        def wrapper(self, *args, **kwargs):
            glance = self._kvcached
            if glance is None or not glance(self):
                prepare(self)
            return original(self, *args, **kwargs)
        return wrapper

    seams.wrap(module.Scheduler, {"schedule": (("self",), schedule)})
    module.Scheduler._kvcached = None


def prepare(scheduler):
    """Before a step that may lack something. Never raises."""
    balloon = balloon_of(scheduler)
    if balloon is None:
        if scheduler._kvcached is not None:
            scheduler._kvcached = None
        return
    manager = scheduler.kv_cache_manager
    try:
        ahead(balloon, scheduler)
    except Exception as error:
        balloon.fail(error)
    # Where nothing can be missing, the engine's own function is called, unwrapped.
    if balloon.sure:
        vllm_retry.remove(manager)
    else:
        vllm_retry.install(manager, balloon)
    scheduler._kvcached = balloon.glance


def balloon_of(scheduler):
    try:
        return scheduler.kv_cache_manager.block_pool._kvcached
    except AttributeError:  # a pool that we do not know, so that there is no balloon on it
        return None


def ahead(balloon, scheduler):
    """A guess that fails costs time, not safety: growth on demand remains."""
    needs = NOTHING
    if not balloon.blind:
        try:
            if balloon.needs is None:
                balloon.look_by(vllm_cache.Needs(scheduler))
            needs = balloon.seen() or balloon.needs.look(scheduler)
        except Exception as error:
            balloon.blind = True
            log.warning("kvcached: %r; growing on demand only", error)
    balloon.ahead(*needs)


SEAMS = seams.Seams({
    "vllm.v1.core.block_pool": block_pool,
    "vllm.v1.core.kv_cache_coordinator": coordinator,
    "vllm.v1.core.kv_cache_manager": vllm_retry.kv_cache_manager,
    "vllm.v1.core.sched.scheduler": scheduler,
    "vllm.v1.engine.core": engine_core,
    "vllm.v1.engine.input_processor": vllm_length.input_processor,
    "vllm.v1.engine.utils": vllm_length.engine_utils,
    "vllm.v1.worker.gpu_worker": gpu_worker,
    "vllm.v1.worker.utils": worker_utils,
    "vllm.v1.worker.gpu.attn_utils": attn_utils,
    "vllm.v1.worker.gpu.model_runner": model_runner_v2,
    "vllm.v1.worker.gpu_model_runner": model_runner_v1,
})
