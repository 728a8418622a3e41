"""Scaled dot product attention by each of its backends."""

from common import show, torch_steady
from torch.nn.attention import SDPBackend, sdpa_kernel

torch = torch_steady()
shape = (4, 16, 1024, 64)
q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
for backend in (SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
    for causal in (False, True):
        try:
            with sdpa_kernel(backend), torch.no_grad():
                out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            show(f"{backend.name} {causal}", out)
        except RuntimeError as error:
            print(backend.name, causal, str(error).splitlines()[0])
# As an engine's cache is used: blocks gathered by a table, written by slots.
cache = torch.zeros(2048, 16, 16, 64, device="cuda", dtype=torch.bfloat16)
slots = torch.randperm(2048, device="cuda")[:1024]
cache.view(-1, 16, 64)[slots * 16] = k.reshape(-1, 16, 64)[:1024]
show("cache", cache)
table = slots[:64]
gathered = cache[table].reshape(1, -1, 16, 64).transpose(1, 2)
with sdpa_kernel(SDPBackend.MATH):
    show("from the cache", torch.nn.functional.scaled_dot_product_attention(q[:1, :, :8], gathered, gathered))
