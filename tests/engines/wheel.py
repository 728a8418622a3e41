"""Loads vLLM's own scheduler, block pool and engine core from an unpacked wheel, without torch.

Only the modules named here are vLLM's; everything else that they import is an empty stand-in whose
attributes exist, can be called, subclassed and used as decorators, and do nothing.
"""
import importlib.abc
import importlib.machinery
import pathlib
import sys

REAL = {
    "vllm.utils.hashing", "vllm.utils.math_utils",
    "vllm.v1.core.block_pool", "vllm.v1.core.kv_cache_coordinator",
    "vllm.v1.core.kv_cache_manager", "vllm.v1.core.kv_cache_metrics",
    "vllm.v1.core.kv_cache_utils", "vllm.v1.core.encoder_cache_manager",
    "vllm.v1.core.sched.async_scheduler", "vllm.v1.core.sched.interface",
    "vllm.v1.core.sched.output", "vllm.v1.core.sched.request_queue",
    "vllm.v1.core.sched.scheduler", "vllm.v1.core.sched.utils",
    "vllm.v1.core.single_type_kv_cache_manager", "vllm.v1.engine", "vllm.v1.engine.core",
    "vllm.v1.kv_cache_interface", "vllm.v1.kv_cache_spec_registry", "vllm.v1.metrics.stats",
    "vllm.v1.outputs", "vllm.v1.request", "vllm.v1.structured_output.request", "vllm.v1.utils",
    "vllm.v1.worker.gpu.attn_utils",
    "vllm.v1.worker.gpu_worker",
}
STAND_INS = ("torch", "transformers", "triton", "numpy", "zmq", "regex", "cloudpickle", "cbor2",
             "blake3", "xxhash", "huggingface_hub", "tokenizers", "PIL")

# What must answer truly among the stand-ins.
VALUES = {
    ("vllm.utils", "length_from_prompt_token_ids_or_embeds"): lambda ids, embeds: len(ids),
    ("vllm.utils.torch_utils", "get_dtype_size"): lambda dtype: dtype.itemsize,
}


class Anything(type):
    """A class that answers every question about itself with another of its kind."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name, (Stub,), {})
        setattr(cls, name, made)
        return made

    def __or__(cls, other):
        return cls

    __ror__ = __or__

    def __getitem__(cls, item):
        return cls

    def __iter__(cls):
        return iter(())


class Stub(metaclass=Anything):
    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        # As a decorator: what it decorates stays.
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return args[0]
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def __iter__(self):
        return iter(())

    def __bool__(self):
        return False


class Wheel(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the real modules in `site`, packages as empty ones, and stand-ins for all others."""

    def __init__(self, site):
        self.site = pathlib.Path(site)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in STAND_INS + ("vllm",):
            return None
        if name in REAL:
            file = self.site / (name.replace(".", "/") + ".py")
            if not file.exists():
                file = self.site / name.replace(".", "/") / "__init__.py"
            places = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.machinery.ModuleSpec(
                name, importlib.machinery.SourceFileLoader(name, str(file)),
                origin=str(file), is_package=places is not None)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        def answer(name):
            if name.startswith("__"):
                raise AttributeError(name)
            if module.__name__ == "vllm.envs" and name.isupper():
                return None  # every setting at its least
            if (module.__name__, name) in VALUES:
                return VALUES[module.__name__, name]
            made = Anything(name, (Stub,), {"__module__": module.__name__})
            setattr(module, name, made)
            return made
        module.__getattr__ = answer


def install(site):
    sys.path.append(str(site))
    sys.meta_path.insert(0, Wheel(site))
