"""Loads vLLM's own scheduler, block pool and engine core from an unpacked wheel, without torch.

Only the modules named here are vLLM's, as far as a release has them; everything else that they
import is an empty stand-in whose attributes exist, can be called, subclassed and used as
decorators, and do nothing.
"""
import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys

from doubles import modules

REAL = {
    "vllm.exceptions", "vllm.utils.hashing", "vllm.utils.math_utils", "vllm.v1.engine",
    "vllm.v1.engine.core", "vllm.v1.engine.input_processor", "vllm.v1.engine.utils",
    "vllm.v1.kv_cache_interface", "vllm.v1.kv_cache_layout", "vllm.v1.kv_cache_spec_registry",
    "vllm.v1.metrics.stats", "vllm.v1.outputs", "vllm.v1.request",
    "vllm.v1.structured_output.request", "vllm.v1.utils", "vllm.v1.worker.gpu.attn_utils",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.v1.worker.gpu_model_runner", "vllm.v1.worker.gpu_worker", "vllm.v1.worker.utils",
}
REAL_PACKAGES = ("vllm.v1.core.",)
STAND_INS = ("torch", "transformers", "triton", "numpy", "zmq", "regex", "cloudpickle", "cbor2",
             "blake3", "xxhash", "huggingface_hub", "tokenizers", "PIL", "msgspec", "pydantic",
             "typing_extensions", "prometheus_client", "uvloop", "psutil", "pybase64", "tqdm")


def cache_planner(name):
    """What the platform names as the planner of the KV cache."""
    planning = importlib.import_module("vllm.v1.core.kv_cache_planning")
    return planning.DefaultKVCacheConfigBuilder


# What must answer truly among the stand-ins.
VALUES = {
    ("msgspec", "Struct"): modules.Struct,
    ("msgspec", "field"): modules.Field,
    ("vllm.utils", "length_from_prompt_token_ids_or_embeds"): lambda ids, embeds: len(ids),
    ("vllm.utils.import_utils", "resolve_obj_by_qualname"): cache_planner,
    ("vllm.v1.structured_output", "StructuredOutputManager"): modules.StructuredOutputManager,
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
        if name in REAL or name.startswith(REAL_PACKAGES):
            place = self.site / name.replace(".", "/")
            for file in (place.with_name(place.name + ".py"), place / "__init__.py"):
                if file.exists():
                    return importlib.machinery.ModuleSpec(
                        name, importlib.machinery.SourceFileLoader(name, str(file)),
                        origin=str(file), is_package=file.name == "__init__.py")
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        def answer(name):
            if name.startswith("__"):
                raise AttributeError(name)
            if module.__name__ == "vllm.envs" and name.isupper():
                return None  # every setting at its least
            if module.__name__ == "typing_extensions":
                return modules.typing_extensions(name)
            if (module.__name__, name) in VALUES:
                return VALUES[module.__name__, name]
            made = Anything(name, (Stub,), {"__module__": module.__name__})
            setattr(module, name, made)
            return made
        module.__getattr__ = answer


def install(site):
    sys.path.append(str(site))
    sys.meta_path.insert(0, Wheel(site))
