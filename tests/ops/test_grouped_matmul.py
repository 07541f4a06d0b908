"""The grouped product against a loop over groups: values, gradients, rows past the end, and compilation for TPU and GPU."""

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.ops.grouped_matmul import blocked, grouped_matmul, ragged

IMPLEMENTATIONS = {"blocked": blocked, "ragged": ragged}
D, F = 5, 7
SIZES = {
    "mixed": (40, [3, 0, 17, 1, 9]),
    "full": (30, [3, 0, 17, 1, 9]),
    "one group has all": (40, [0, 0, 40, 0, 0]),
    "all in the last": (40, [0, 0, 0, 0, 11]),
    "nothing": (40, [0, 0, 0, 0, 0]),
    "many tiny ones": (40, [1] * 29),
    "one group": (9, [6]),
    "a long one among short ones": (700, [2, 650, 5, 0, 43]),
}


def example(rows, sizes, seed=0):
    """x, kernels, sizes and cotangents; rows past the end are NaN."""
    rng = np.random.default_rng(seed)
    x, cotangent = rng.normal(size=(rows, D)), rng.normal(size=(rows, F))
    x[sum(sizes) :] = cotangent[sum(sizes) :] = np.nan
    return x, rng.normal(size=(len(sizes), D, F)), np.array(sizes, np.int32), cotangent


def loop(x, kernels, sizes, cotangent):
    """``(out, gradient by x, gradient by kernels)``, group after group."""
    out, by_x, by_kernels = np.zeros(cotangent.shape), np.zeros(x.shape), np.zeros(kernels.shape)
    start = 0
    for group, size in enumerate(sizes):
        here = slice(start, start + size)
        out[here] = x[here] @ kernels[group]
        by_x[here] = cotangent[here] @ kernels[group].T
        by_kernels[group] = x[here].T @ cotangent[here]
        start += size
    return out, by_x, by_kernels


@functools.partial(jax.jit, static_argnums=0)
def values(product, x, kernels, sizes, cotangent):
    out, back = jax.vjp(lambda x, kernels: product(x, kernels, sizes), x, kernels)
    return out, *back(cotangent.astype(out.dtype))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_values_and_gradients_are_the_loop_s(implementation, name):
    args = example(*SIZES[name])
    with jax.enable_x64(True):
        found = values(IMPLEMENTATIONS[implementation], *args)
        assert {a.dtype for a in found} == {jnp.dtype("float64")}
    for got, want in zip(found, loop(*args)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)  # what is past the end is 0, not NaN


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype, rounding", [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_narrow_types_are_rounded_once(implementation, dtype, rounding):
    """Sums are float32 at least: what comes out is the exact value, rounded."""
    rows, sizes = SIZES["a long one among short ones"]
    x, kernels, sizes, cotangent = (jnp.asarray(a) for a in example(rows, sizes))
    x, kernels, cotangent = (a.astype(dtype) for a in (x, kernels, cotangent))
    found = values(IMPLEMENTATIONS[implementation], x, kernels, sizes, cotangent)
    exact = loop(*(np.asarray(a, np.float64) for a in (x, kernels)), np.asarray(sizes), np.asarray(cotangent, np.float64))
    for got, want in zip(found, exact):
        assert got.dtype == dtype
        np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=rounding, atol=1e-6 * np.abs(want).max())


def test_blocked_equals_ragged_whatever_the_sizes():
    """Many drawn sizes through one program, in a scan: nothing depends on them but the values."""
    rng = np.random.default_rng(1)
    sizes = np.array([np.sort(rng.integers(0, 61, 7)) for _ in range(40)])
    sizes = np.diff(np.concatenate([np.zeros((40, 1), int), sizes], 1), axis=1).astype(np.int32)
    x, kernels = rng.normal(size=(60, D)).astype(np.float32), rng.normal(size=(7, D, F)).astype(np.float32)

    @jax.jit
    def each(x, kernels, sizes):
        def one(total, size):
            outs = [product(x, kernels, size) for product in (blocked, ragged)]
            return total + outs[0].sum(), jnp.stack(outs)

        return jax.lax.scan(one, 0.0, sizes)[1]

    found = np.asarray(each(x, kernels, sizes))
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=0, atol=1e-5)
    for got, size in zip(found[:, 0], sizes):
        np.testing.assert_allclose(got, loop(x, kernels, size, np.zeros((60, F)))[0], rtol=0, atol=1e-5)


def test_rows_with_no_group_reach_nothing():
    """Not even another row's bits."""
    x, kernels, sizes, cotangent = example(40, [3, 0, 17, 1, 9])
    other = [np.where(np.isnan(a), 1e30, a).astype(np.float32) for a in (x, cotangent)]
    with_nan = values(blocked, np.float32(x), np.float32(kernels), sizes, np.float32(cotangent))
    without = values(blocked, other[0], np.float32(kernels), sizes, other[1])
    for a, b in zip(with_nan, without):
        np.testing.assert_array_equal(a, b)


def test_the_platform_chooses():
    x, kernels, sizes, _ = (jnp.asarray(a, None if a.dtype == np.int32 else jnp.float32) for a in example(40, [20, 20]))
    texts = {
        platform: str(jax.make_jaxpr(functools.partial(grouped_matmul, platform=platform))(x, kernels, sizes))
        for platform in ("cpu", "gpu", "tpu")
    }
    assert "ragged_dot" in texts["tpu"] and "ragged_dot" not in texts["cpu"] + texts["gpu"]
    assert texts["cpu"] == texts["gpu"]


def temporary_bytes(groups):
    """Of the reference and its gradients, 512 rows over so many groups."""
    shapes = (512, 64), (groups, 64, 64), (512, 64)
    x, kernels, cotangent = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    sizes = jax.ShapeDtypeStruct((groups,), jnp.int32)
    compiled = values.lower(blocked, x, kernels, sizes, cotangent).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_rows_times_groups():
    few, many = temporary_bytes(8), temporary_bytes(64)
    # a product with every group's matrix would hold 512 * 64 floats for each of 56 more groups: 7 MB
    padding_and_gradient = 4 * 56 * (3 * 64 * 64 + 3 * 8 * 64)
    assert many - few < padding_and_gradient < 4 * 56 * 512 * 64


# ------------------------------------------------------------------------------------- for machines that are not there
FOR_A_TPU = """
import os, sys
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from r1jax import sharding
from r1jax.ops.experts import expert_mlp

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1")
layout = sharding.layout(sharding.make_mesh(1, 2, 2, devices=topology.devices), sharding.TRAIN_RULES)
B, T, K, E, D, F = 4, 1024, 2, 64, 256, 256

def struct(shape, dtype, *axes):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.sharding(axes))

x = struct((B, T, D), jnp.bfloat16, "batch")
experts, weights = struct((B, T, K), jnp.int32, "batch"), struct((B, T, K), jnp.float32, "batch")
inward = struct((E, D, F), jnp.bfloat16, "expert", "expert_embed", None)
down = struct((E, F, D), jnp.bfloat16, "expert", None, "expert_embed")

def loss(x, weights, gate, up, down, experts):
    return expert_mlp(x, experts, weights, gate, up, down).astype(jnp.float32).sum()

with layout.use():
    step = jax.jit(jax.grad(loss, (0, 1, 2, 3, 4)))
    compiled = step.trace(x, weights, inward, inward, down, experts).lower(lowering_platforms=("tpu",)).compile()
text = compiled.as_text()
assert "tpu_custom_call" in text or "ragged" in text, text[:2000]
dense = (B // 2) * T * K * (E // 2) * F * 2  # bytes of a product of a device's rows with every matrix that it holds
print("temporary", compiled.memory_analysis().temp_size_in_bytes, "dense", dense)
"""


def libtpu() -> str | None:
    """The library that compiles for TPUs: installed here, or named by TPU_LIBRARY_PATH."""
    if os.environ.get("TPU_LIBRARY_PATH"):
        return os.environ["TPU_LIBRARY_PATH"]
    try:
        found = [f for f in importlib.metadata.files("libtpu") if f.name == "libtpu.so"]
    except importlib.metadata.PackageNotFoundError:
        return None
    return str(found[0].locate()) if found else None


@pytest.mark.slow
def test_it_compiles_for_a_tpu_that_is_not_there():
    library = libtpu()
    if library is None:
        pytest.skip("libtpu is not installed (pip install 'jax[tpu]') and TPU_LIBRARY_PATH does not name it")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_LIBRARY_PATH": library, "XLA_FLAGS": ""}
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", FOR_A_TPU], capture_output=True, text=True, timeout=500, cwd=root, env=environment
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Involuntary full rematerialization" not in ended.stderr
    _, temporary, _, dense = ended.stdout.split()[-4:]
    assert int(temporary) < int(dense), json.dumps({"temporary": temporary, "dense": dense})
