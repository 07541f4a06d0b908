"""How fast the grouped product is beside a dense one and ``jax.lax.ragged_dot``, forwards and with gradients.

  python tools/benchmarks/grouped_matmul.py                      # a tiny mixture's shape, on the CPU
  python tools/benchmarks/grouped_matmul.py --rows 16384 --groups 64 --width 2048 --inner 1024 --dtype bfloat16

Rows are dealt to groups at random (multinomial). The dense product is that of the same rows with one matrix: what a grouped one
would cost if groups were free. Implementations take turns in one process, so that a busy machine slows all alike; the best of
--repeats counts, and ratios to the dense product are what to compare between machines.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.ops.grouped_matmul import blocked, ragged


def dense(x: jax.Array, kernels: jax.Array, sizes: jax.Array) -> jax.Array:
    """The same rows by one matrix."""
    del sizes
    precision = None if x.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST
    return jnp.dot(x, kernels[0], precision=precision, preferred_element_type=jnp.float32).astype(x.dtype)


def with_gradients(product: Callable) -> Callable:
    """``product`` and what it gives backwards."""

    def run(x, kernels, sizes):
        out, back = jax.vjp(lambda x, kernels: product(x, kernels, sizes), x, kernels)
        return back(out)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 1024), ("groups", 8), ("width", 96), ("inner", 64), ("repeats", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(args.rows, args.width)), args.dtype)
    kernels = jnp.asarray(rng.normal(size=(args.groups, args.width, args.inner)), args.dtype)
    sizes = jnp.asarray(rng.multinomial(args.rows, np.full(args.groups, 1 / args.groups)), jnp.int32)
    operands = (x, kernels, sizes)
    products = {"dense": dense, "blocked": blocked, "ragged": ragged}
    print(f"{jax.devices()[0].device_kind}: {args.rows} rows of {args.width} by {args.groups} x {args.width} x {args.inner}")
    for what, change in (("forward", lambda product: product), ("gradients", with_gradients)):
        compiled = {name: jax.jit(change(product)).lower(*operands).compile() for name, product in products.items()}
        best = dict.fromkeys(compiled, float("inf"))
        for _ in range(args.repeats + 1):  # the first turn warms up
            for name, run in compiled.items():
                start = time.perf_counter()
                jax.block_until_ready(run(*operands))
                best[name] = min(best[name], time.perf_counter() - start)
        for name, seconds in best.items():
            memory = compiled[name].memory_analysis().temp_size_in_bytes / 2**20
            print(f"{what:9}  {name:7}  {seconds * 1e3:8.3f} ms  {seconds / best['dense']:6.2f} x dense  {memory:7.1f} MiB")


if __name__ == "__main__":
    main()
