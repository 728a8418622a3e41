"""A miniature of vLLM's engine core: the same seams with the same rules for blocks, and nothing
else. It stands in for the wheel where there is none. No text of it is vLLM's."""
import enum
import queue
import types

from doubles import tensors
from doubles.vllm_engine import BLOCK, DIM, HEADS, LAYERS, PAGE, Loose, token


class KVCacheBlock:
    def __init__(self, block_id):
        self.block_id = block_id
        self.ref_cnt = 0
        self.block_hash = None
        self.prev_free_block = self.next_free_block = None
        self.is_null = False


class FreeKVCacheBlockQueue:
    def __init__(self, blocks):
        self.fake_free_list_head = KVCacheBlock(-1)
        self.fake_free_list_tail = KVCacheBlock(-1)
        self.num_free_blocks = 0
        self._join(self.fake_free_list_head, self.fake_free_list_tail)
        self.append_n(blocks)

    @staticmethod
    def _join(a, b):
        a.next_free_block, b.prev_free_block = b, a

    def _insert(self, before, block):
        self._join(block, before.next_free_block)
        self._join(before, block)
        self.num_free_blocks += 1

    def remove(self, block):
        self._join(block.prev_free_block, block.next_free_block)
        block.prev_free_block = block.next_free_block = None
        self.num_free_blocks -= 1

    def popleft_n(self, n):
        assert n <= self.num_free_blocks
        taken = []
        for _ in range(n):
            taken.append(self.fake_free_list_head.next_free_block)
            self.remove(taken[-1])
        return taken

    def popleft(self):
        return self.popleft_n(1)[0]

    def get_all_free_blocks(self):
        found, block = [], self.fake_free_list_head.next_free_block
        while block is not self.fake_free_list_tail:
            found.append(block)
            block = block.next_free_block
        return found

    def append(self, block):
        self._insert(self.fake_free_list_tail.prev_free_block, block)

    def append_n(self, blocks):
        for block in blocks:
            self.append(block)

    def prepend_n(self, blocks):
        for block in reversed(blocks):
            self._insert(self.fake_free_list_head, block)


class BlockPool:
    def __init__(self, num_gpu_blocks, enable_caching, hash_block_size=BLOCK):
        self.num_gpu_blocks = num_gpu_blocks
        self.enable_caching = enable_caching
        self.blocks = [KVCacheBlock(i) for i in range(num_gpu_blocks)]
        self.free_block_queue = FreeKVCacheBlockQueue(self.blocks)
        self.by_hash = {}
        self.null_block = self.free_block_queue.popleft_n(1)[0]
        self.null_block.is_null = True

    def get_new_blocks(self, num_blocks):
        if num_blocks > self.get_num_free_blocks():
            raise ValueError("no free blocks")
        blocks = self.free_block_queue.popleft_n(num_blocks)
        for block in blocks:
            if self.enable_caching:
                self._maybe_evict_cached_block(block)
            block.ref_cnt += 1
        return blocks

    def _maybe_evict_cached_block(self, block):
        if block.block_hash is None:
            return False
        if self.by_hash.get(block.block_hash) is block:
            del self.by_hash[block.block_hash]
        block.block_hash = None
        return True

    def touch(self, blocks):
        for block in blocks:
            if not block.ref_cnt and not block.is_null:
                self.free_block_queue.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks):
        known, unknown = [], []
        for block in ordered_blocks:
            block.ref_cnt -= 1
            if not block.ref_cnt and not block.is_null:
                (unknown if block.block_hash is None else known).append(block)
        self.free_block_queue.prepend_n(unknown)
        self.free_block_queue.append_n(known)

    def evict_blocks(self, block_ids):
        for number in block_ids:
            self._maybe_evict_cached_block(self.blocks[number])

    def reset_prefix_cache(self):
        if self.num_gpu_blocks - self.get_num_free_blocks() != 1:
            return False
        self.by_hash.clear()
        for block in self.blocks:
            block.block_hash = None
        return True

    def get_num_free_blocks(self):
        return self.free_block_queue.num_free_blocks

    def get_usage(self):
        return 1.0 - self.get_num_free_blocks() / (self.num_gpu_blocks - 1)


class KVCacheCoordinator:
    def __init__(self, blocks, caching):
        self.block_pool = BlockPool(num_gpu_blocks=blocks, enable_caching=caching)
        self.of_request = {}

    def get_num_blocks_to_allocate(self, request_id, num_tokens, hits):
        held = len(self.of_request.get(request_id, ()))
        free_hits = sum(1 for block in hits if not block.ref_cnt)
        return max(0, -(-num_tokens // BLOCK) - held - len(hits)) + free_hits


class KVCacheManager:
    def __init__(self, blocks, caching, watermark):
        self.coordinator = KVCacheCoordinator(blocks, caching)
        self.block_pool = self.coordinator.block_pool
        self.watermark_blocks = int(watermark * blocks)

    def hits(self, request):
        found = []
        for end in range(BLOCK, len(request.tokens), BLOCK):
            block = self.block_pool.by_hash.get(tuple(request.tokens[:end]))
            if block is None:
                break
            found.append(block)
        return found

    def allocate_slots(self, request, num_new_tokens, hits=(), reserved_blocks=0):
        pool, coordinator = self.block_pool, self.coordinator
        total = request.computed + len(hits) * BLOCK + num_new_tokens
        need = coordinator.get_num_blocks_to_allocate(request.request_id, total, hits)
        watermark = 0 if request.running else self.watermark_blocks
        if need + watermark > pool.get_num_free_blocks() - reserved_blocks:
            return None
        held = coordinator.of_request.setdefault(request.request_id, [])
        pool.touch(hits)
        held.extend(hits)
        held.extend(pool.get_new_blocks(-(-total // BLOCK) - len(held)))
        if pool.enable_caching:
            for index in range(min(total, len(request.tokens)) // BLOCK):
                key = tuple(request.tokens[:(index + 1) * BLOCK])
                if held[index].block_hash is None:
                    held[index].block_hash = key
                    pool.by_hash.setdefault(key, held[index])
        return held

    def free(self, request):
        self.block_pool.free_blocks(
            reversed(self.coordinator.of_request.pop(request.request_id, [])))


class Request:
    def __init__(self, request_id, prompt, max_tokens):
        self.request_id = request_id
        self.tokens = list(prompt)
        self.end = len(prompt) + max_tokens
        self.computed = 0
        self.running = self.is_prefill_chunk = False

    @property
    def num_tokens(self):
        return len(self.tokens)


class Scheduler:
    num_lookahead_tokens = 0

    def __init__(self, kv_cache_config, caching, budget, max_num_seqs, watermark):
        self.kv_cache_config = kv_cache_config
        self.max_num_scheduled_tokens = budget
        self.max_num_running_reqs = max_num_seqs
        self.kv_cache_manager = KVCacheManager(kv_cache_config.num_blocks, caching, watermark)
        self.waiting, self.skipped_waiting, self.running = [], [], []

    def has_requests(self):
        return bool(self.running or self.waiting or self.skipped_waiting)

    def schedule(self, throttle_prefills=False):
        budget, plan, manager = self.max_num_scheduled_tokens, {}, self.kv_cache_manager
        preempted = False
        for request in list(self.running):
            if request not in self.running or not budget:
                continue
            count = min(len(request.tokens) - request.computed, budget)
            while manager.allocate_slots(request, count) is None:
                last = self.running.pop()
                budget += plan.pop(last.request_id, 0)
                self._preempt(last)
                preempted = True
                if last is request:
                    break
            if request in self.running:
                plan[request.request_id] = count
                budget -= count
        while self.waiting and budget > 0 and not preempted and (
                len(self.running) < self.max_num_running_reqs):
            request = self.waiting[0]
            hits = manager.hits(request)
            count = min(len(request.tokens) - len(hits) * BLOCK, budget)
            if manager.allocate_slots(request, count, hits) is None:
                break
            self.waiting.pop(0)
            request.computed = len(hits) * BLOCK
            request.running = True
            self.running.append(request)
            plan[request.request_id] = count
            budget -= count
        return plan

    def _preempt(self, request):
        self.kv_cache_manager.free(request)
        request.computed, request.running = 0, False
        self.waiting.insert(0, request)


class SchedulerOutput:
    """What goes to the workers of an engine with several GPUs."""

    def __init__(self, plan, blocks):
        self.num_scheduled_tokens = plan
        self.total_num_scheduled_tokens = sum(plan.values())
        self.blocks = blocks  # of each request: its numbers, in order


class Worker:
    def __init__(self, vllm_config, runner, rank=0):
        self.vllm_config = vllm_config
        self.model_runner = runner
        self.rank = rank

    def initialize_from_config(self, kv_cache_config):
        self.model_runner.initialize_kv_cache(kv_cache_config)

    def update_max_model_len(self, max_model_len):
        self.model_runner.update_max_model_len(max_model_len)

    def execute_model(self, scheduler_output):
        return self.model_runner.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output):
        return self.model_runner.sample_tokens(grammar_output)


class EngineCore:
    def __init__(self, vllm_config, executor_class, log_stats=False):
        names = ["layer.%d" % i for i in range(LAYERS)]
        spec = Loose(block_size=BLOCK, num_kv_heads=HEADS, head_size=DIM, dtype=tensors.bfloat16)
        kv_cache_config = types.SimpleNamespace(
            num_blocks=vllm_config.blocks,
            kv_cache_tensors=[types.SimpleNamespace(size=PAGE * vllm_config.blocks, shared_by=[n],
                                                    offset=0, block_stride=0) for n in names],
            kv_cache_groups=[types.SimpleNamespace(layer_names=names, kv_cache_spec=spec)])
        self.model_executor = None
        if vllm_config.parallel_config.world_size > 1:
            self.model_executor = executor_class(vllm_config)
            self.model_executor.initialize_from_config(kv_cache_config)
        else:
            self.worker = Worker(vllm_config, executor_class(vllm_config))
            self.worker.initialize_from_config(kv_cache_config)
        self.scheduler = Scheduler(kv_cache_config, vllm_config.caching, vllm_config.budget,
                                   vllm_config.max_num_seqs, vllm_config.watermark)
        self.steps = []

    def step(self):
        plan = self.scheduler.schedule()
        if self.model_executor is not None:
            held = self.scheduler.kv_cache_manager.coordinator.of_request
            self.model_executor.execute_model(SchedulerOutput(
                plan, {name: [block.block_id for block in held[name]] for name in plan}))
        outputs = {}
        if plan:
            self.steps.append(dict(plan))
        for request in list(self.scheduler.running):
            request.computed += plan.get(request.request_id, 0)
            request.is_prefill_chunk = request.computed < len(request.tokens)
            if request.request_id not in plan or request.computed < len(request.tokens):
                continue
            sampled = token(request.request_id, request.computed)
            request.tokens.append(sampled)
            outputs[request.request_id] = [sampled]
            if len(request.tokens) == request.end:
                self.scheduler.running.remove(request)
                self.scheduler.kv_cache_manager.free(request)
        return outputs, bool(plan)

    def preprocess_add_request(self, request):
        return request, 0

    def post_step(self, model_executed):
        pass

    def abort(self, request_id):
        for queue in (self.scheduler.running, self.scheduler.waiting):
            for request in list(queue):
                if request.request_id == request_id:
                    queue.remove(request)
                    self.scheduler.kv_cache_manager.free(request)

    def shutdown(self):
        pass


class EngineCoreReadyResponse:
    max_model_len: int


class EngineCoreRequestType(enum.Enum):
    WAKEUP = b"\x05"


class EngineCoreProc(EngineCore):
    """An engine that takes its requests from a queue."""

    def __init__(self, *args):
        self.input_queue = queue.Queue()
        super().__init__(*args)

    def _handle_client_request(self, request_type, request):
        assert request_type is EngineCoreRequestType.WAKEUP


class Backend:
    """K and V of a block side by side, blocks first."""

    @staticmethod
    def get_kv_cache_shape(blocks, block_size, heads, dim):
        return (blocks, 2, block_size, heads, dim)


library = None  # the double of the library, which is also the allocator


def _allocate_kv_cache(kv_cache_config, shared_layers, device):
    made = {}
    for tensor in kv_cache_config.kv_cache_tensors:
        raw = tensors.Tensor(library.allocate(tensor.size), (tensor.size,), tensors.int8)
        made.update(dict.fromkeys(tensor.shared_by, raw))
    return made


def init_kv_cache(runner_kv_caches, forward_context, kv_cache_config):
    # Looked up where the adapter wraps it.
    raws = MODULES["vllm.v1.worker.gpu.attn_utils"]._allocate_kv_cache(kv_cache_config, {}, "cuda")
    shape = Backend.get_kv_cache_shape(kv_cache_config.num_blocks, BLOCK, HEADS, DIM)
    return {name: raw.view(tensors.bfloat16).view(shape) for name, raw in raws.items()}


class Runner:
    def __init__(self, vllm_config):
        self.vllm_config = vllm_config

    def update_max_model_len(self, max_model_len):
        self.max_model_len = max_model_len

    def initialize_kv_cache(self, kv_cache_config):
        self.views = MODULES["vllm.v1.worker.gpu.attn_utils"].init_kv_cache(
            [], {}, kv_cache_config)


def _module(name, *members):
    made = types.ModuleType(name)
    for member in members:
        setattr(made, member.__name__, member)
    return made


# The miniature, laid out as vLLM's modules are.
MODULES = {m.__name__: m for m in (
    _module("vllm.v1.core.block_pool", BlockPool, FreeKVCacheBlockQueue, KVCacheBlock),
    _module("vllm.v1.core.kv_cache_coordinator", KVCacheCoordinator),
    _module("vllm.v1.core.kv_cache_manager", KVCacheManager),
    _module("vllm.v1.core.sched.scheduler", Scheduler),
    _module("vllm.v1.engine", EngineCoreReadyResponse),
    _module("vllm.v1.engine.core", EngineCore, EngineCoreProc, EngineCoreRequestType),
    _module("vllm.v1.worker.gpu_worker", Worker),
    _module("vllm.v1.worker.gpu.attn_utils", _allocate_kv_cache, init_kv_cache))}
