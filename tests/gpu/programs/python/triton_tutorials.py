"""Kernels after Triton's first tutorials: vector addition, fused softmax, matrix product, dropout."""

import torch
import triton
import triton.language as tl
from common import show

torch.manual_seed(5)


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


@triton.jit
def softmax_kernel(out, source, out_stride, stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    mask = at < columns
    values = tl.load(source + row * stride + at, mask=mask, other=-float("inf"))
    top = tl.exp(values - tl.max(values, axis=0))
    tl.store(out + row * out_stride + at, top / tl.sum(top, axis=0), mask=mask)


@triton.jit
def matmul_kernel(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    left = a + rows[:, None] * K + inner[None, :]
    right = b + inner[:, None] * N + columns[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, K, BK):
        total = tl.dot(tl.load(left), tl.load(right), total)
        left += BK
        right += BK * N
    tl.store(c + rows[:, None] * N + columns[None, :], total.to(tl.float16))


@triton.jit
def dropout_kernel(x, out, n, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    keep = tl.rand(seed, at) > 0.3
    tl.store(out + at, tl.where(keep, tl.load(x + at, mask=mask) / 0.7, 0.0), mask=mask)


n = (5 << 20) + 17
x, y = torch.randn(n, device="cuda"), torch.randn(n, device="cuda")
out = torch.empty_like(x)
add_kernel[(triton.cdiv(n, 1024),)](x, y, out, n, BLOCK=1024)
show("add", out)
print("as torch", torch.equal(out, x + y))
rows = torch.randn(1823, 781, device="cuda")
soft = torch.empty_like(rows)
softmax_kernel[(1823,)](soft, rows, soft.stride(0), rows.stride(0), 781, BLOCK=1024)
show("softmax", soft)
a = torch.randn(1024, 512, device="cuda", dtype=torch.float16)
b = torch.randn(512, 2048, device="cuda", dtype=torch.float16)
c = torch.empty(1024, 2048, device="cuda", dtype=torch.float16)
matmul_kernel[(1024 // 64, 2048 // 64)](a, b, c, 1024, 2048, 512, BM=64, BN=64, BK=32)
show("product", c)
print("near torch", torch.allclose(c, a @ b, atol=1e-1, rtol=1e-2))
dropout_kernel[(triton.cdiv(n, 1024),)](x, out, n, 77, BLOCK=1024)
show("dropout", out)
print("measures", triton.testing.do_bench(lambda: add_kernel[(64,)](x, y, out, 65536, BLOCK=1024), warmup=1, rep=2) > 0)
