"""CuPy: its own kernels, raw ones, and NVIDIA's libraries through it."""

import cupy
from common import show

x = cupy.arange(1 << 22, dtype=cupy.float32).reshape(2048, 2048)
show("elementwise", cupy.sin(x) * 2 + x[::-1])
show("sum", x.sum(axis=0))
show("sort", cupy.sort(-x.ravel()))
show("cumulative", cupy.cumsum(cupy.ones(1 << 21, dtype=cupy.int64)))
raw = cupy.RawKernel(r"""
extern "C" __global__ void scale(const float* in, float* out, float by, int n) {
  const int i = blockDim.x * blockIdx.x + threadIdx.x;
  if (i < n) out[i] = in[i] * by + i % 3;
}""", "scale")
out = cupy.empty_like(x)
raw((x.size // 256,), (256,), (x, out, cupy.float32(1.5), x.size))
show("raw", out)
squared = cupy.ElementwiseKernel("float32 a, float32 b", "float32 c", "c = (a - b) * (a - b)", "squared")
show("own elementwise", squared(x, out))
norm = cupy.ReductionKernel("float32 x", "float64 length", "(double)x * x", "a + b", "length = sqrt(a)", "0", "row_length")
show("own reduction", norm(x, axis=1))
with cupy.cuda.Stream(non_blocking=True) as stream:
    show("stream", x + 1)
    stream.synchronize()
generator = cupy.random.RandomState(7)
show("random", generator.standard_normal((1 << 20,)))
for what, function in (("product", lambda: x[:512, :512] @ x[:512, :512]), ("fft", lambda: cupy.fft.fft(x)),
                       ("solve", lambda: cupy.linalg.solve(cupy.eye(256) * 3 + 1, cupy.ones(256)))):
    try:
        show(what, function())
    except Exception as error:
        print(what, type(error).__name__)
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    y = cupy.zeros(1 << 20, dtype=cupy.float32)
    stream.begin_capture()
    y += 1
    y *= 2
    graph = stream.end_capture()
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    show("graph", y)
