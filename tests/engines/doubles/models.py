"""Models for the tests: the KV cache that each layer asks for, in an engine's own classes, and the
views in which kernels see it."""
import dataclasses
import importlib
import types

from doubles import tensors

BLOCK = 16
HEADS = 2
DIM = 8
WINDOW = 48
LATENT = (576, 64)  # head sizes of layers that keep latent rows


def attention(**other):
    return dict(dict(kind="FullAttentionSpec", block_size=BLOCK, num_kv_heads=HEADS, head_size=DIM,
                     dtype=tensors.bfloat16), **other)


def window(**other):
    return attention(**dict(dict(kind="SlidingWindowSpec", sliding_window=WINDOW), **other))


def latent(**other):
    return attention(**dict(dict(kind="MLAAttentionSpec", num_kv_heads=1, head_size=LATENT[0],
                                 block_size=64), **other))


def recurrent(**other):
    """A state a block, as large as the blocks of attention()."""
    return dict(dict(kind="MambaSpec", block_size=BLOCK, shapes=((16, 16), (4, 64)),
                     dtypes=(tensors.bfloat16, tensors.bfloat16), mamba_cache_mode="align"),
                **other)


# Layers in the order of the model.
MODELS = {
    "plain": [attention()] * 3,
    # Two layers with the whole context, four with a window: three groups over two tensors.
    "hybrid": [attention(), window(), window(), attention(), window(), window()],
    # The same, in windows whose blocks have twice the tokens and half the heads.
    "block sizes": [attention(), window(block_size=2 * BLOCK, num_kv_heads=HEADS // 2)] * 2,
    # One group, layers of different widths.
    "widths": [attention(), attention(num_kv_heads=2 * HEADS), attention()],
    "latent": [latent()] * 2,
    "fp8": [attention(dtype=tensors.float8)] * 3,
    # Latent rows of two sizes, some in a window: their blocks lie side by side in one allocation.
    "packed": [latent(), latent(head_size=LATENT[1]),
               latent(kind="SlidingWindowMLASpec", sliding_window=WINDOW),
               latent(kind="SlidingWindowMLASpec", sliding_window=WINDOW, head_size=LATENT[1])],
    "sinks": [attention(kind="SinkFullAttentionSpec", sink_len=2 * BLOCK)] * 2,
    "recurrent": [attention(), recurrent(), recurrent()],
    # A block a request, however long it is.
    "rings": [attention(), dict(kind="CircularBufferSpec", block_size=8, num_kv_heads=1,
                                head_size=64, head_size_v=0, dtype=tensors.bfloat16)],
}


def known(model):
    """Whether the engine loaded has the classes for it."""
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    return all(hasattr(interface, layer["kind"]) for layer in MODELS[model])


def specs(model):
    """{layer name: the specification of its KV cache}, of the classes of the engine loaded."""
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    found = {}
    for number, layer in enumerate(MODELS[model]):
        spec = getattr(interface, layer["kind"])
        known = {field.name for field in dataclasses.fields(spec)}
        assert set(layer) - {"kind"} <= known, (layer, known)
        found["layers.%d.attn" % number] = spec(**{k: v for k, v in layer.items() if k != "kind"})
    return found


class Backend:
    """K and V of a block side by side, blocks first; latent rows have no V."""

    @staticmethod
    def get_kv_cache_shape(blocks, block_size, heads, dim, cache_dtype_str="auto"):
        if dim in LATENT:
            return (blocks, block_size, dim)
        return (blocks, 2, block_size, heads, dim)

    @staticmethod
    def get_kv_cache_block_dim(block_size, heads, dim, cache_dtype_str="auto"):
        return 0


class HeadsFirstBackend(Backend):
    """All tokens of a head, then those of the next."""

    @staticmethod
    def get_kv_cache_stride_order():
        return (0, 1, 3, 2, 4)


class SplitBackend(Backend):
    """All of K before all of V."""

    @staticmethod
    def get_kv_cache_shape(blocks, block_size, heads, dim, cache_dtype_str="auto"):
        return (2, blocks, block_size, heads, dim)

    @staticmethod
    def get_kv_cache_block_dim(block_size, heads, dim, cache_dtype_str="auto"):
        return 1


def attention_groups(kv_cache_config, backend):
    """Layers of one group and one specification, as the worker sorts them."""
    found = []
    for number, group in enumerate(kv_cache_config.kv_cache_groups):
        parts = {}
        of_layer = getattr(group.kv_cache_spec, "kv_cache_specs", None) or {}
        for name in group.layer_names:
            parts.setdefault(of_layer.get(name, group.kv_cache_spec), []).append(name)
        found.append([types.SimpleNamespace(kv_cache_group_id=number, layer_names=names,
                                            kv_cache_spec=spec, backend=backend,
                                            kernel_block_size=None)
                      for spec, names in parts.items()])
    return found
