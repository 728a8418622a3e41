"""The adapter for vLLM, one GPU, releases that look like 0.24.0: the seams it wraps.

It never changes what a call means and never raises into a running engine. What it does not
recognise it leaves alone: then the KV cache is plain memory and `kvcached stat` says why.

  EngineCore.__init__                  the frame in which cache and block pool must meet
    Worker.initialize_from_config      is this an engine that we can serve?
      _allocate_kv_cache(_tensors)     tag: the tensors become elastic
      init_kv_cache(_tensors)          their views tell where blocks lie: make the cache
    BlockPool.__init__                 withhold all blocks (balloon.py)
  Scheduler.schedule, KVCacheManager.allocate_slots, BlockPool.get_new_blocks: grow
  EngineCore.post_step: all launches of the step are out: take back
"""

import functools
import importlib
import logging
import threading

from _kvcached import client, seams, vllm_cache

# What every elastic engine runs through. Of the two model runners only one is used.
REQUIRED = (
    "vllm.v1.core.block_pool",
    "vllm.v1.core.kv_cache_coordinator",
    "vllm.v1.core.kv_cache_manager",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
)

log = logging.getLogger("kvcached")


class Frame:
    """One EngineCore.__init__ under way in this thread."""

    def __init__(self):
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


def current():
    """The allocation of the engine that takes its KV memory in this thread right now, or None."""
    frame = thread.frame
    return frame.allocation if frame is not None and frame.allocating else None


def guarded(pool, action, *arguments):
    """Our part of a call on `pool`. A failure of ours pins the cache; the engine goes on."""
    try:
        action(*arguments)
    except Exception as error:
        log.warning("kvcached: %r; the KV cache is pinned", error, exc_info=error)
        try:
            if pool._kvcached is not None:
                pool._kvcached.pin(str(error) or repr(error))
        except Exception as second:
            log.warning("kvcached: %r while pinning", second)


# ---- Where the cache comes from ----------------------------------------------------------------


def engine_core(module):
    def init(original):
        def wrapper(self, *args, **kwargs):
            outer, frame = thread.frame, Frame()
            thread.frame = frame
            try:
                original(self, *args, **kwargs)
            finally:
                thread.frame = outer
            allocation = frame.allocation
            if allocation is not None and allocation.balloon is not None:
                self._kvcached = allocation
            elif allocation is not None and allocation.elastic:
                allocation.give_up(allocation.trouble_was or "no block pool came")
                allocation.must_back()
        return wrapper

    def post_step(original):
        def wrapper(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            allocation = self._kvcached
            if allocation is not None:
                pool = allocation.balloon.pool
                if pool._kvcached is not None:
                    guarded(pool, settle, allocation.balloon, self.scheduler)
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
        "post_step": (("self", "model_executed"), post_step),
        "shutdown": (("self",), shutdown),
    })
    module.EngineCore._kvcached = None


def settle(balloon, scheduler):
    waiting = [getattr(scheduler, queue, ()) for queue in ("waiting", "skipped_waiting")]
    balloon.settle(idle=not balloon.in_use and not any(waiting))


def gpu_worker(module):
    def initialize_from_config(original):
        def wrapper(self, kv_cache_config, *args, **kwargs):
            frame = thread.frame
            why = refusal(self, kv_cache_config)
            if why:
                say("stock: " + why)
                return original(self, kv_cache_config, *args, **kwargs)
            frame.allocation = vllm_cache.Allocation(the_library(), self, kv_cache_config)
            frame.allocating = True
            try:
                result = original(self, kv_cache_config, *args, **kwargs)
            finally:
                frame.allocating = False
            frame.allocation.end()
            return result
        return wrapper

    seams.wrap(module.Worker, {
        "initialize_from_config": (("self", "kv_cache_config"), initialize_from_config),
    })


def refusal(worker, kv_cache_config):
    try:
        if thread.frame is None:
            return "scheduler and worker are different processes"
        for name in REQUIRED:
            importlib.import_module(name)
        return SEAMS.unknown(REQUIRED) or vllm_cache.serve(worker, kv_cache_config)
    except Exception as error:
        return repr(error)


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


def attn_utils(module):
    seams.wrap(module, {
        "_allocate_kv_cache": (("kv_cache_config",), tagging),
        "init_kv_cache": (("runner_kv_caches", "forward_context", "kv_cache_config"), claiming),
    })


def model_runner_v2(module):
    # It may have imported the name before this adapter came.
    module.init_kv_cache = importlib.import_module("vllm.v1.worker.gpu.attn_utils").init_kv_cache


def model_runner_v1(module):
    # The V1 runner first makes a small cache to measure graphs, outside of the worker's
    # initialize_from_config; that one stays plain.
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
            frame = thread.frame
            if frame is not None and frame.allocation is not None:
                frame.allocation.meet(self)
        return wrapper

    def get_new_blocks(original):
        def wrapper(self, num_blocks, *args, **kwargs):
            balloon = self._kvcached
            if balloon is None:
                return original(self, num_blocks, *args, **kwargs)
            guarded(self, balloon.before_taking, num_blocks)
            blocks = original(self, num_blocks, *args, **kwargs)
            guarded(self, balloon.taken, blocks)
            return blocks
        return wrapper

    def touch(original):
        def wrapper(self, blocks, *args, **kwargs):
            balloon = self._kvcached
            if balloon is None:
                return original(self, blocks, *args, **kwargs)
            free = {b.block_id: b for b in blocks if not b.ref_cnt and not b.is_null}
            result = original(self, blocks, *args, **kwargs)
            guarded(self, balloon.touched, free.values())
            return result
        return wrapper

    def free_blocks(original):
        def wrapper(self, ordered_blocks, *args, **kwargs):
            balloon = self._kvcached
            if balloon is None:
                return original(self, ordered_blocks, *args, **kwargs)
            blocks = list(ordered_blocks)
            result = original(self, blocks, *args, **kwargs)
            guarded(self, balloon.freed, blocks)
            return result
        return wrapper

    def maybe_evict(original):
        def wrapper(self, block, *args, **kwargs):
            evicted = original(self, block, *args, **kwargs)
            balloon = self._kvcached
            if evicted and balloon is not None and not block.ref_cnt:
                guarded(self, balloon.forget, block)
            return evicted
        return wrapper

    def reset_prefix_cache(original):
        def wrapper(self, *args, **kwargs):
            balloon = self._kvcached
            if balloon is None:
                return original(self, *args, **kwargs)
            total = self.num_gpu_blocks
            self.num_gpu_blocks = total - balloon.withheld  # or they would look used
            try:
                done = original(self, *args, **kwargs)
            finally:
                self.num_gpu_blocks = total
            if done:
                guarded(self, balloon.forget_all)
                guarded(self, balloon.settle, True)
            return done
        return wrapper

    def get_usage(original):
        def wrapper(self):
            usage = original(self)
            balloon = self._kvcached
            if balloon is None or self.num_gpu_blocks < 2:
                return usage
            return usage - balloon.withheld / (self.num_gpu_blocks - 1)
        return wrapper

    seams.wrap(module.BlockPool, {
        "__init__": (("self", "num_gpu_blocks", "enable_caching"), init),
        "get_new_blocks": (("self", "num_blocks"), get_new_blocks),
        "touch": (("self", "blocks"), touch),
        "free_blocks": (("self", "ordered_blocks"), free_blocks),
        "_maybe_evict_cached_block": (("self", "block"), maybe_evict),
        "reset_prefix_cache": (("self",), reset_prefix_cache),
        "get_usage": (("self",), get_usage),
    })
    module.BlockPool._kvcached = None


def check_queue(module):
    """The free queue is a list linked both ways between two ends, as the balloon relies on."""
    blocks = [module.KVCacheBlock(i) for i in range(3)]
    queue = module.FreeKVCacheBlockQueue(blocks)
    chain = [queue.fake_free_list_head, *blocks, queue.fake_free_list_tail]
    linked = all(a.next_free_block is b and b.prev_free_block is a
                 for a, b in zip(chain, chain[1:]))
    queue.remove(blocks[1])
    cut = blocks[0].next_free_block is blocks[2] and blocks[1].next_free_block is None
    queue.append(blocks[1])
    if not (linked and cut and queue.num_free_blocks == 3 and
            blocks[2].next_free_block is blocks[1] and not blocks[0].ref_cnt and
            blocks[0].block_hash is None):
        raise seams.Unknown("the free queue")


def coordinator(module):
    def get_num_blocks_to_allocate(original):
        def wrapper(self, *args, **kwargs):
            needed = original(self, *args, **kwargs)
            balloon = self.block_pool._kvcached
            if balloon is not None:
                balloon.required = needed
            return needed
        return wrapper

    seams.wrap(module.KVCacheCoordinator, {
        "get_num_blocks_to_allocate": (("self", "request_id", "num_tokens"),
                                       get_num_blocks_to_allocate),
    })


def kv_cache_manager(module):
    def allocate_slots(original):
        def wrapper(self, request, *args, **kwargs):
            result = original(self, request, *args, **kwargs)
            balloon = self.block_pool._kvcached
            # The engine asks for the whole request first and then for this step's part, so a
            # second attempt may find another need.
            for _ in range(2):
                if result is not None or balloon is None:
                    break
                extra = self.watermark_blocks + kwargs.get("reserved_blocks", 0)
                room = []
                guarded(self.block_pool, lambda: room.append(balloon.make_room(extra)))
                if room != [True] and self.block_pool._kvcached is not None:
                    break
                result = original(self, request, *args, **kwargs)
            return result
        return wrapper

    seams.wrap(module.KVCacheManager, {
        "allocate_slots": (("self", "request", "num_new_tokens"), allocate_slots),
    })


def scheduler(module):
    def schedule(original):
        def wrapper(self, *args, **kwargs):
            pool = self.kv_cache_manager.block_pool
            balloon = pool._kvcached
            if balloon is not None:
                guarded(pool, ahead, balloon, self)
            return original(self, *args, **kwargs)
        return wrapper

    seams.wrap(module.Scheduler, {"schedule": (("self",), schedule)})


def ahead(balloon, of_scheduler):
    """A guess that fails costs time, not safety: growth on demand remains."""
    if balloon.blind:
        return
    try:
        now, later = vllm_cache.needs(of_scheduler)
    except Exception as error:
        balloon.blind = True
        log.warning("kvcached: %r; growing on demand only", error)
        return
    balloon.ahead(now, later)


SEAMS = seams.Seams({
    "vllm.v1.core.block_pool": block_pool,
    "vllm.v1.core.kv_cache_coordinator": coordinator,
    "vllm.v1.core.kv_cache_manager": kv_cache_manager,
    "vllm.v1.core.sched.scheduler": scheduler,
    "vllm.v1.engine.core": engine_core,
    "vllm.v1.worker.gpu_worker": gpu_worker,
    "vllm.v1.worker.gpu.attn_utils": attn_utils,
    "vllm.v1.worker.gpu.model_runner": model_runner_v2,
    "vllm.v1.worker.gpu_model_runner": model_runner_v1,
})
