"""vLLM: from the engine's KV allocation to an elastic cache with a balloon on its block pool."""

import bisect
import collections
import logging
import os
import sys

from _kvcached import Demand, balloon, client, layout, torch_segments

PREFIX_CACHE = "KVCACHED_PREFIX_CACHE"
PREFIX_CACHE_DEFAULT = 0.05
UNKNOWN = sys.maxsize
PINNED = 1  # blocks that are never freed: the null block
START_WAIT_MS = 30000  # for memory that an engine cannot start without
# Where schedulers keep the requests that do not run yet; a release has some of them.
WAITING = ("waiting", "skipped_waiting", "kv_holding_waiting")

SHAPE = ("num_kv_heads", "head_size", "dtype")  # of a layer's specification

# What an engine tells its front end once it is ready; the greatest length is part of it since 0.20.
READY = "EngineCoreReadyResponse"

log = logging.getLogger("kvcached")


def serve(worker, kv_cache_config, ranks=1):
    """Why the cache of this engine, which we know to have so many ranks, cannot be elastic, in
    words; "" when it can."""
    config = worker.vllm_config
    if config.parallel_config.world_size != ranks:
        return "more than one GPU"
    if config.kv_transfer_config is not None:
        return "a KV connector"
    if getattr(config.model_config, "enable_cumem_allocator", False) or getattr(
            config.model_config, "enable_sleep_mode", False):
        return "the sleep-mode allocator"
    if not kv_cache_config.kv_cache_tensors or kv_cache_config.num_blocks < 2:
        return "no KV cache"
    if getattr(kv_cache_config, "hisparse_host_num_blocks", None) is not None:
        return "blocks on the host"  # and blocks that are read after they were freed
    return ""


def layer_specs(group):
    """The specifications of the layers in one KV cache group."""
    spec = group.kv_cache_spec
    return list((getattr(spec, "kv_cache_specs", None) or {"": spec}).values())


def layer_window(spec):
    """Tokens that a layer looks back at most; 0: all of them."""
    window = getattr(spec, "sliding_window", None)
    return window if isinstance(window, int) else 0


def most_blocks(group, config):
    """Of one request, however long, by the engine's own count: it takes few for recurrent states,
    rings, and what an encoder made. UNKNOWN for windows, which keep more of what is in flight."""
    if any(map(layer_window, layer_specs(group))):
        return UNKNOWN
    spec = group.kv_cache_spec
    try:
        return max(1, -(-spec.max_memory_usage_bytes(config) // spec.page_size_bytes))
    except Exception:  # it does not say
        return UNKNOWN


class Allocation:
    """The KV cache of one engine, from its tensors to its balloon. `elastic` are the addresses of
    allocations that are not backed as a whole: as long as there are any, either the balloon stands
    or the engine must not run."""

    def __init__(self, library, worker, kv_cache_config):
        self.library = library
        self.worker = worker
        self.config = worker.vllm_config
        self.kv_cache_config = kv_cache_config
        self.blocks = kv_cache_config.num_blocks
        self.pieces = {}
        self.elastic = []
        self.cache = None
        self.balloon = None
        self.registered = False  # the model, of which each token takes as much as the next
        self.state = ""
        self.trouble_was = ""

    def report(self, text):
        if text != self.state:
            self.state = text
            self.library.report("vllm", text)

    # ---- Tensors -----------------------------------------------------------------------------

    def tag(self, allocate):
        """Calls `allocate`, the engine's own function that makes {layer: tensor}, such that its
        memory is elastic."""
        torch = sys.modules["torch"]
        try:
            torch.cuda.empty_cache()  # or torch may serve it from memory that it holds already
            tagged = self.library.tag_push("kv") == client.OK
        except Exception as error:
            log.warning("kvcached: %r", error)
            tagged = False
        if not tagged:
            self.report("stock: the library passes through")
            return allocate()
        try:
            with torch_segments.plain(torch):
                tensors = allocate()
        finally:
            self.library.tag_pop()
        try:
            self._find(tensors.values())
        except Exception as error:
            self.give_up(error)
        return tensors

    def _find(self, tensors):
        self.pieces = layout.allocations(tensors)
        codes = {address: self.library.resident(address, size)[0]
                 for address, size in self.pieces.items()}
        self.elastic = [address for address, code in codes.items() if code == client.OK]
        if not self.elastic:
            self.pieces = {}
            self.report("stock: the library passes through" if client.OFF in codes.values() else
                        "stock: torch took the memory elsewhere")
        elif len(self.elastic) < len(codes):
            self.give_up("torch took a part of the memory elsewhere")

    def make_cache(self, kv_caches):
        """`kv_caches`: {layer: tensor or tensors}, the views that the kernels use."""
        if not self.pieces or self.trouble_was:
            return
        try:
            views = []
            for view in kv_caches.values():
                views.extend(view if isinstance(view, (list, tuple)) else [view])
            segments = layout.segments(self.pieces, views, self.blocks)
            code, self.cache = self.library.create_cache(segments, self.blocks, [(0, PINNED)])
            if code != client.OK:
                self.give_up("cache_create answered %d" % code)
                return
            self.report("elastic: %d segments, %d blocks" % (len(segments), self.blocks))
        except Exception as error:
            self.give_up(error)
            return
        try:
            self._register_model()
        except Exception as error:  # only shown
            log.warning("kvcached: the model's shape: %r", error)

    def end(self, unknown):
        """The engine's KV memory is complete. `unknown`: what is not known about model runners."""
        self.worker = None  # the engine's, which would stay as long as its pool
        if not self.state:
            if self.elastic:
                self.give_up(unknown or "the model runner lays out its cache in an unknown way")
            else:
                self.report("stock: " + (unknown or
                                         "the model runner allocates in an unknown way"))

    def _register_model(self):
        groups = self.kv_cache_config.kv_cache_groups
        spec = next((spec for group in groups for spec in layer_specs(group)
                     if all(getattr(spec, name, None) is not None for name in SHAPE)), None)
        if spec is None:
            return
        model = self.config.model_config
        longest = model.max_model_len
        takes = [self.group_blocks(group, longest) for group in groups]
        code, limit = self.library.register_model(
            str(getattr(model, "served_model_name", None) or model.model),
            sum(len(group.layer_names) for group in groups), spec.num_kv_heads,
            spec.head_size, spec.dtype.itemsize, longest, spec.block_size,
            -(-self.block_bytes() * sum(takes) // longest))
        if code == client.OK:
            self.registered = takes == [-(-longest // group.kv_cache_spec.block_size)
                                        for group in groups]
            self._fit(model, limit)

    def _fit(self, model, limit):
        """A request that never fits would wait for ever: of an engine that may have `limit` bytes,
        only shorter ones are accepted, as vLLM does where it finds its greatest length by itself."""
        code, stripes = self.cache.stripes()
        usable = 0
        for _, count in stripes:
            if (usable + count) * self.block_bytes() > limit:
                break
            usable += count
        most = self.most_tokens(usable - PINNED)
        if code != client.OK or most >= model.max_model_len:
            return
        told = "max_model_len" in getattr(sys.modules.get("vllm.v1.engine"), READY,
                                          type(None)).__dict__.get("__annotations__", ())
        # With several GPUs the scheduler, which must know it, lives in another process.
        if most < 1 or not told or self.config.parallel_config.world_size > 1:
            log.warning("kvcached: the limit of this engine covers requests of %d tokens; longer "
                        "ones, up to %d, would wait for ever", max(most, 0), model.max_model_len)
            return
        log.warning("kvcached: the limit of this engine covers requests of %d tokens; longer ones, "
                    "up to %d, are refused", most, model.max_model_len)
        model.max_model_len = most
        self.worker.update_max_model_len(most)

    # ---- Block pool --------------------------------------------------------------------------

    def meet(self, pool):
        """The engine made its block pool: withholds all blocks without memory."""
        if self.balloon is not None or not self.elastic:
            return
        try:
            self._inflate(pool, self.cache)
        except Exception as error:
            self.give_up(error)
            if not self.elastic:
                return
            try:
                self._inflate(pool, None)
            except Exception as second:
                log.warning("kvcached: %r", second)
                self.must_back()
                return
        if self.balloon.cache is None:
            self.balloon.pin(self.trouble_was)
        else:
            self.balloon.start()

    def block_bytes(self):
        """Of all layers."""
        return sum(self.pieces.values()) // self.blocks

    def request_blocks(self, tokens):
        """Blocks that a request of so many tokens takes, at most."""
        blocks = sum(1 + self.group_blocks(group, tokens)
                     for group in self.kv_cache_config.kv_cache_groups)
        return min(self.blocks - 1, blocks)

    def group_blocks(self, group, tokens):
        """Those of one group, where they begin with the request's first token."""
        spec = group.kv_cache_spec
        window = layer_window(spec)
        if window:
            tokens = min(tokens, window + 2 * self.config.scheduler_config.max_num_batched_tokens)
        return min(-(-tokens // spec.block_size), most_blocks(group, self.config))

    def most_tokens(self, blocks):
        """Of the greatest request that surely fits into so many blocks."""
        longest = self.config.model_config.max_model_len
        return bisect.bisect_right(range(1, longest + 1), blocks, key=self.request_blocks)

    def _inflate(self, pool, cache):
        if len(pool.blocks) != self.blocks:
            raise balloon.Broken("a pool of %d blocks for a cache of %d" %
                                 (len(pool.blocks), self.blocks))
        self.balloon = balloon.Balloon(pool, self.library, cache, self.elastic,
                                       prefix_cache_blocks(self.blocks, sum(self.pieces.values())),
                                       self.request_blocks(self.config.model_config.max_model_len),
                                       self.report)
        pool._kvcached = self.balloon

    # ---- Giving up ---------------------------------------------------------------------------

    def give_up(self, why):
        """Not elastic after all: backs what was reserved, as far as the pool has memory now."""
        self.trouble_was = str(why) or repr(why)
        log.warning("kvcached: the KV cache of this engine is not elastic: %s", self.trouble_was)
        if self.cache is not None:
            self.cache.destroy()
            self.cache = None
        while self.elastic and self.library.back_whole(self.elastic[0], 0) == client.OK:
            self.elastic.pop(0)
        self.report(("pinned, waiting for memory: " if self.elastic else "pinned: ") +
                    self.trouble_was)

    def must_back(self):
        """No balloon can stand between the engine and unbacked memory. An engine that cannot have
        all of it does not start, as in stock when its cudaMalloc fails."""
        while self.elastic:
            if self.library.back_whole(self.elastic[0], START_WAIT_MS) != client.OK:
                raise RuntimeError("kvcached: no memory for the whole KV cache, and it cannot be "
                                   "elastic: " + self.trouble_was)
            self.elastic.pop(0)
        self.report("pinned: " + self.trouble_was)


def waiting_queues(scheduler):
    """Those that are not empty."""
    queues = (getattr(scheduler, name, None) for name in WAITING)
    return [queue for queue in queues if queue]


class Needs(Demand):
    """What a scheduler will take, told before each of its steps at a cost that does not grow with
    the number of its requests.

    look(scheduler)   the blocks that the step will take, what the next ones may beyond, how many
                      surely suffice for the step, and for how many steps that is about all that can
                      be said
    same(scheduler)   no more requests than at the last look, and none that waits
    forget()          what it keeps of requests, at a moment when there are none
    blocks(tokens)    of a request of so many tokens
    in_a_step()       blocks that prefill may take in one step
    """

    def __init__(self, scheduler):
        groups = scheduler.kv_cache_config.kv_cache_groups
        # A state that others may share is copied first.
        copied = sum(getattr(group.kv_cache_spec, "mamba_cache_mode", None) is not None
                     for group in groups)
        manager = getattr(scheduler, "kv_cache_manager", None)
        config = getattr(scheduler, "vllm_config", None)
        self.begin([name for name in WAITING if hasattr(scheduler, name)],
                   [(tokens, most_blocks(group, config))
                    for tokens, group in zip(block_tokens(manager, groups), groups)],
                   1 + getattr(scheduler, "num_spec_tokens", 0), scheduler.num_lookahead_tokens,
                   copied, scheduler.max_num_scheduled_tokens,
                   int(getattr(manager, "watermark_blocks", 0)), collections.deque)


def block_tokens(manager, groups):
    """Of each group, the tokens for which a request takes one block: with context parallelism more
    than the block itself has, as each rank keeps a part of them."""
    managers = getattr(getattr(manager, "coordinator", None), "single_type_managers", ())
    known = managers if len(managers) == len(groups) else [group.kv_cache_spec for group in groups]
    return [each.block_size for each in known]


def prefix_cache_blocks(blocks, size):
    """How many free blocks may stay backed because the prefix cache knows them, of `blocks` that
    take `size` bytes: KVCACHED_PREFIX_CACHE, as a size or a share of the whole cache."""
    text = os.environ.get(PREFIX_CACHE, "").strip()
    if not text:
        return int(PREFIX_CACHE_DEFAULT * blocks)
    units = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
        else:
            number = text.rstrip("BbGgIiKkMmTt")
            share = float(number) * units[text[len(number):].strip().upper()] / size
        if not 0 <= share < float("inf"):
            raise ValueError(text)
        return int(min(share, 1) * blocks)
    except (ValueError, KeyError):
        # The library has said what is wrong with it when it read its settings.
        return int(PREFIX_CACHE_DEFAULT * blocks)
