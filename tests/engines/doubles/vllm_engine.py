"""What stands around vLLM's own EngineCore and scheduler in a test: configuration, worker, and a
model that answers a fixed function of request and position."""
import concurrent.futures
import importlib
import inspect
import sys
import types
import zlib

from doubles import models, tensors
from doubles.models import BLOCK, DIM, HEADS  # noqa: F401

LAYERS = 3
MAX_MODEL_LEN = 512
PAGE = 2 * BLOCK * HEADS * DIM * 2  # K and V of one block, bfloat16


def block_bytes():
    """Of all layers."""
    return PAGE * LAYERS


def widen(heads, dim):
    """Gives the layers of the plain model more heads; before `worlds` is imported."""
    global HEADS, DIM, PAGE
    HEADS, DIM, PAGE = heads, dim, 2 * BLOCK * heads * dim * 2
    models.MODELS["plain"] = [models.attention(num_kv_heads=heads, head_size=dim)] * LAYERS


class Loose(types.SimpleNamespace):
    """Settings: what a test does not name is None."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def config(blocks, caching, async_scheduling=False, max_model_len=MAX_MODEL_LEN, max_num_seqs=16,
           budget=128, policy="fcfs", watermark=0.0, model="plain", layout="LBNHC",
           backend=models.Backend, v2=True, cut=1):
    """`cut`: into how many blocks of their own the kernels cut each block."""
    def kv_cache_layout(name):
        return importlib.import_module("vllm.v1.kv_cache_layout").KVCacheLayout[name]

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
        cache_config=Loose(
            enable_prefix_caching=caching, block_size=BLOCK, num_gpu_blocks_override=blocks,
            prefix_caching_hash_algo="sha256", cache_dtype="auto", mamba_cache_mode="align",
            mamba_block_size=BLOCK,
            get_resolved_kv_cache_layout=lambda: kv_cache_layout(layout)),
        parallel_config=Loose(
            world_size=1, tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1,
            data_parallel_index=0, decode_context_parallel_size=1, prefill_context_parallel_size=1,
            data_parallel_rank=0, data_parallel_rank_local=0),
        model_config=Loose(max_model_len=max_model_len, original_max_model_len=max_model_len,
                           is_encoder_decoder=False, is_diffusion=False, model="double",
                           runner_type="generate", is_moe=False, hf_config=Loose()),
        attention_config=Loose(), aux_output_config=Loose(), device_config=Loose(device_type="cuda"),
        ec_manager_config=Loose(get_encoder_cache_manager_obj=lambda: None),
        observability_config=Loose(kv_cache_metrics=False),
        compilation_config=Loose(compilation_time=0, encoder_compilation_time=0,
                                 static_forward_context={}),
        max_concurrent_batches=2 if async_scheduling else 1,
        max_in_flight_tokens=(2 if async_scheduling else 1) * budget, num_speculative_tokens=0,
        num_lookahead_tokens=0, num_prefill_lookahead_tokens=0, num_hash_lookahead_tokens=0,
        use_v2_model_runner=v2, validate_block_size=lambda: None,
        adjust_dcp_kv_cache_interleave_size=lambda groups: None, model=model, layout=layout,
        backend=backend, cut=cut)


def token(request_id, position):
    return (zlib.crc32(request_id.encode()) + position * 7) % 1000


def required(function, values):
    """Of `values`, those that `function` cannot be called without."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: values[p.name] for p in parameters if p.default is inspect.Parameter.empty}


def kernel_block_sizes(kv_cache_config, vllm_config):
    return [group.kv_cache_spec.block_size // vllm_config.cut
            for group in kv_cache_config.kv_cache_groups]


class Runner:
    """vLLM's V2 model runner as far as the KV cache goes: its own functions make it."""

    def __init__(self, vllm_config):
        self.vllm_config = vllm_config

    def update_max_model_len(self, max_model_len):
        self.max_model_len = max_model_len

    def initialize_kv_cache(self, kv_cache_config, **context):
        attn_utils = importlib.import_module("vllm.v1.worker.gpu.attn_utils")
        attn_utils.bind_kv_cache = lambda *arguments: None  # there are no layers
        backend = self.vllm_config.backend
        groups = models.attention_groups(kv_cache_config, backend)
        self.views = attn_utils.init_kv_cache(**required(attn_utils.init_kv_cache, dict(
            runner_kv_caches=[], forward_context={}, kv_cache_config=kv_cache_config,
            attn_groups=groups, attn_backends={name: backend for of_group in groups
                                               for group in of_group for name in group.layer_names},
            device="cuda", cache_dtype="auto", vllm_config=self.vllm_config,
            kernel_block_sizes=kernel_block_sizes(kv_cache_config, self.vllm_config))))


class RunnerV1:
    """The same of the V1 model runner."""

    def __init__(self, vllm_config):
        self.vllm_config = vllm_config

    def initialize_kv_cache(self, kv_cache_config, **context):
        module = importlib.import_module("vllm.v1.worker.gpu_model_runner")
        module.bind_kv_cache = lambda *arguments, **named: None  # there are no layers
        runner = module.GPUModelRunner.__new__(module.GPUModelRunner)
        runner.vllm_config = config = self.vllm_config
        runner.model_config, runner.cache_config = config.model_config, config.cache_config
        runner.compilation_config, runner.speculative_config = config.compilation_config, None
        runner.device, runner.kv_caches, runner.kv_cache_config = "cuda", [], kv_cache_config
        runner.shared_kv_cache_layers, runner.runner_only_attn_layers = {}, set()
        runner.attn_groups = models.attention_groups(kv_cache_config, config.backend)
        self.views = runner.initialize_kv_cache_tensors(
            kv_cache_config, kernel_block_sizes(kv_cache_config, config))


class Executor:
    """One worker in this process, and a model that samples token()."""

    def __init__(self, vllm_config):
        from vllm.v1.worker.gpu_worker import Worker
        self.vllm_config = vllm_config
        self.worker = Worker.__new__(Worker)
        self.worker.vllm_config = vllm_config
        self.worker.model_config = vllm_config.model_config
        self.worker.cache_config = vllm_config.cache_config
        runner = Runner if vllm_config.use_v2_model_runner else RunnerV1
        self.worker.model_runner = runner(vllm_config)
        self.supported_tasks = ("generate",)
        self.max_concurrent_batches = vllm_config.max_concurrent_batches
        self.scheduled = []
        self.steps = []  # what each step ran: {request: tokens}

    def register_failure_callback(self, callback):
        pass

    def get_kv_cache_specs(self):
        return [models.specs(self.vllm_config.model)]

    def get_supported_kv_cache_layouts(self):
        return [[self.vllm_config.layout]]

    def set_kv_cache_layout(self, *layout):
        pass

    def collective_rpc(self, *arguments, **named):
        pass

    def compile_or_warm_up_model(self):
        pass

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
    for name, function in tensors.functions(library.allocate).items():
        setattr(torch, name, function)


def make(vllm_config, library, make_executor=Executor, input_queue=None):
    """vLLM's EngineCore on the double of the library, which is also torch's allocator. None: this
    process allocates nothing. With `input_queue`, as in a process of its own, but for the sockets."""
    from vllm.v1.engine.core import EngineCore, EngineCoreProc

    class Proc(EngineCoreProc):
        def __init__(self, *args, **kwargs):
            self.input_queue = input_queue
            EngineCore.__init__(self, *args, **kwargs)

    if library is not None:
        allocate_from(library)
    executors = []

    def executor_class(settings):
        executors.append(make_executor(settings))
        return executors[-1]

    engine = (EngineCore if input_queue is None else Proc)(vllm_config, executor_class,
                                                           log_stats=False)
    executors[0].engine = engine
    engine.executor_double = executors[0]
    return engine
