"""JAX: compiled products, gradients, scans and maps, and a small training loop."""

import os

os.environ["XLA_FLAGS"] = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"

import jax
import jax.numpy as jnp
from common import show


@jax.jit
def product(a, b):
    return jnp.tanh(a @ b) + a


def loss(weights, x, y):
    hidden = jax.nn.relu(x @ weights[0] + weights[1])
    return jnp.mean((hidden @ weights[2] - y) ** 2)


key = jax.random.PRNGKey(6)
a = jax.random.normal(key, (2048, 2048))
print("platform", jax.devices()[0].platform)
show("product", product(a, a.T))
keys = jax.random.split(key, 4)
weights = [jax.random.normal(keys[0], (512, 1024)) * 0.02, jnp.zeros(1024), jax.random.normal(keys[1], (1024, 8)) * 0.02]
x, y = jax.random.normal(keys[2], (4096, 512)), jax.random.normal(keys[3], (4096, 8))
step = jax.jit(lambda w: [v - 0.1 * g for v, g in zip(w, jax.grad(loss)(w, x, y))], donate_argnums=0)
for _ in range(10):
    weights = step(weights)
for i, value in enumerate(weights):
    show(f"weights {i}", value)
_, sums = jax.lax.scan(lambda c, v: (c + v, c * v), jnp.zeros(2048), a)
show("scan", sums)
show("mapped", jax.vmap(lambda row: jnp.sort(row))(a[:256]))
try:
    jnp.zeros((1 << 41,), dtype=jnp.uint8).block_until_ready()
    print("endless memory")
except Exception as error:
    print("out of memory", "RESOURCE_EXHAUSTED" in str(error))
show("works on", product(a, a))
