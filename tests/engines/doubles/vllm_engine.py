"""What stands around vLLM's own EngineCore and scheduler in a test: configuration, worker, and a
model that answers a fixed function of request and position."""
import concurrent.futures
import importlib
import sys
import types
import zlib

from doubles import tensors

BLOCK = 16
LAYERS = 3
HEADS = 2
DIM = 8
MAX_MODEL_LEN = 512
PAGE = 2 * BLOCK * HEADS * DIM * 2  # K and V of one block, bfloat16


class Loose(types.SimpleNamespace):
    """Settings: what a test does not name is None."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class Backend:
    """K and V of a block side by side, blocks first."""

    @staticmethod
    def get_kv_cache_shape(blocks, block_size, heads, dim, cache_dtype_str="auto"):
        return (blocks, 2, block_size, heads, dim)


class SplitBackend(Backend):
    """All of K before all of V."""

    @staticmethod
    def get_kv_cache_shape(blocks, block_size, heads, dim, cache_dtype_str="auto"):
        return (2, blocks, block_size, heads, dim)


def config(blocks, caching, async_scheduling=False, max_model_len=MAX_MODEL_LEN, max_num_seqs=16,
           budget=128, policy="fcfs", watermark=0.0):
    def get_scheduler_cls():
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        return AsyncScheduler if async_scheduling else Scheduler

    return Loose(
        scheduler_config=Loose(
            async_scheduling=async_scheduling, enable_chunked_prefill=True, policy=policy,
            long_prefill_token_threshold=0, max_num_batched_tokens=budget, watermark=watermark,
            max_num_seqs=max_num_seqs, scheduler_reserve_full_isl=True, prefill_schedule_interval=1,
            get_scheduler_cls=get_scheduler_cls),
        cache_config=Loose(enable_prefix_caching=caching, block_size=BLOCK, hash_block_size=BLOCK,
                           num_gpu_blocks_override=blocks, prefix_caching_hash_algo="sha256",
                           cache_dtype="auto"),
        parallel_config=Loose(
            world_size=1, pipeline_parallel_size=1, data_parallel_size=1, data_parallel_index=0,
            decode_context_parallel_size=1, prefill_context_parallel_size=1, data_parallel_rank=0,
            data_parallel_rank_local=0),
        model_config=Loose(max_model_len=max_model_len, original_max_model_len=max_model_len,
                           is_encoder_decoder=False, is_diffusion=False, model="double",
                           runner_type="generate", is_moe=False),
        observability_config=Loose(kv_cache_metrics=False),
        compilation_config=Loose(compilation_time=0, encoder_compilation_time=0,
                                 static_forward_context={}),
        max_concurrent_batches=2 if async_scheduling else 1, num_speculative_tokens=0,
        use_v2_model_runner=True, validate_block_size=lambda: None)


def token(request_id, position):
    return (zlib.crc32(request_id.encode()) + position * 7) % 1000


class Runner:
    """vLLM's V2 model runner as far as the KV cache goes: its own functions make it."""

    backend = Backend

    def __init__(self, vllm_config):
        self.vllm_config = vllm_config

    def initialize_kv_cache(self, kv_cache_config):
        attn_utils = importlib.import_module("vllm.v1.worker.gpu.attn_utils")
        group = kv_cache_config.kv_cache_groups[0]
        attn_group = types.SimpleNamespace(kv_cache_group_id=0, layer_names=group.layer_names,
                                           kv_cache_spec=group.kv_cache_spec, backend=self.backend)
        self.kv_caches = []
        self.views = attn_utils.init_kv_cache(
            self.kv_caches, {}, kv_cache_config, [[attn_group]], "cuda", "auto", [BLOCK],
            self.vllm_config)


class Executor:
    """One worker in this process, and a model that samples token()."""

    runner = Runner

    def __init__(self, vllm_config):
        from vllm.v1.worker.gpu_worker import Worker
        self.vllm_config = vllm_config
        self.worker = Worker.__new__(Worker)
        self.worker.vllm_config = vllm_config
        self.worker.model_config = vllm_config.model_config
        self.worker.cache_config = vllm_config.cache_config
        self.worker.model_runner = self.runner(vllm_config)
        self.supported_tasks = ("generate",)
        self.scheduled = []
        self.steps = []  # what each step ran: {request: tokens}

    def register_failure_callback(self, callback):
        pass

    def get_kv_cache_specs(self):
        from vllm.v1.kv_cache_interface import FullAttentionSpec
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=HEADS, head_size=DIM,
                                 dtype=tensors.bfloat16)
        return [{"layer.%d" % i: spec for i in range(LAYERS)}]

    def determine_available_memory(self):
        return [1 << 40]

    def initialize_from_config(self, configs):
        self.worker.initialize_from_config(configs[0])

    def execute_model(self, output, non_block=False):
        self.scheduled.append(output)
        if output.total_num_scheduled_tokens:
            self.steps.append(dict(output.num_scheduled_tokens))
        future = concurrent.futures.Future()
        future.set_result(None if output.total_num_scheduled_tokens else self._answer())
        return future

    def sample_tokens(self, grammar, non_block=False):
        answer = self._answer()
        if not non_block:
            return answer
        future = concurrent.futures.Future()
        future.set_result(answer)
        return future

    def _answer(self):
        from vllm.v1.outputs import ModelRunnerOutput
        output = self.scheduled.pop(0)
        sampled = []
        for name in output.num_scheduled_tokens:
            request = self.engine.scheduler.requests[name]
            # The count of computed tokens includes this step's already.
            sampled.append([] if request.is_prefill_chunk else
                           [token(name, request.num_computed_tokens)])
        names = list(output.num_scheduled_tokens)
        return ModelRunnerOutput(req_ids=names, req_id_to_index={n: i for i, n in enumerate(names)},
                                 sampled_token_ids=sampled)

    def shutdown(self):
        pass


def allocate_from(library):
    """torch takes its tensors from the library, or a double of it."""
    torch = sys.modules["torch"]
    torch.int8 = tensors.int8
    torch.zeros = lambda size, dtype, device: tensors.Tensor(library.allocate(size), (size,), dtype)


def make(vllm_config, library, make_executor=Executor):
    """vLLM's EngineCore on the double of the library, which is also torch's allocator."""
    from vllm.v1.engine.core import EngineCore
    allocate_from(library)
    executors = []

    def executor_class(settings):
        executors.append(make_executor(settings))
        return executors[-1]

    engine = EngineCore(vllm_config, executor_class, log_stats=False)
    executors[0].engine = engine
    engine.executor_double = executors[0]
    return engine
