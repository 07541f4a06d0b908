"""A dropless mixture of SwiGLU experts over the mesh: every token reaches each expert that it chose."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax import sharding
from r1jax.ops.grouped_matmul import grouped_matmul

Array = jax.Array


def expert_mlp(x: Array, experts: Array, weights: Array, gate: Array, up: Array, down: Array) -> Array:
    """``sum_k weights_k down_e(silu(gate_e x) * up_e x)`` with ``e = experts_k``.

    Under an ambient layout (``Layout.use``) each device computes the experts that it holds: where they lie on an axis that
    also spreads the batch, tokens are gathered over it first and results scattered after; over the other axes results are
    summed.

    Args:
      x: ``[B, T, D]``.
      experts: int ``[B, T, K]``; E or more is no expert: padding is routed nowhere.
      weights: ``[B, T, K]``.
      gate, up: ``[E, D, F]``. down: ``[E, F, D]``.

    Returns:
      ``[B, T, D]`` in the dtype of ``x``.
    """
    layout = sharding.current()
    if layout is None:
        return _local(x, experts, weights, gate, up, down, platform=jax.default_backend())
    batch, expert = layout.axes_of("batch"), layout.axes_of("expert")
    shared = tuple(axis for axis in batch if axis in expert)
    alone = tuple(axis for axis in expert if axis not in batch)
    run = functools.partial(_on_shard, expert_axes=expert, gathered=shared, summed=alone, platform=layout.platform)
    rows, kernels = PartitionSpec(batch), PartitionSpec(expert)
    specs = (rows, rows, rows, kernels, kernels, kernels)
    return jax.shard_map(run, mesh=layout.mesh, in_specs=specs, out_specs=rows, check_vma=False)(
        x, experts, weights, gate, up, down
    )


def _on_shard(x, experts, weights, gate, up, down, *, expert_axes, gathered, summed, platform):
    for axis in reversed(gathered):
        x, experts, weights = (jax.lax.all_gather(a, axis, axis=0, tiled=True) for a in (x, experts, weights))
    if expert_axes:
        here = len(gate)
        first = jax.lax.axis_index(expert_axes) * here
        experts = jnp.where((experts >= first) & (experts < first + here), experts - first, here)
    y = _local(x, experts, weights, gate, up, down, platform=platform)
    if summed:
        y = jax.lax.psum(y, summed)
    for axis in gathered:
        y = jax.lax.psum_scatter(y, axis, scatter_dimension=0, tiled=True)
    return y


def _local(x, experts, weights, gate, up, down, *, platform):
    """The part of the experts that are here; others' numbers are ``len(gate)`` or more."""
    B, T, D = x.shape
    K, E = experts.shape[-1], len(gate)
    choice = jnp.minimum(experts.reshape(-1), E)
    order = jnp.argsort(choice, stable=True)
    sizes = jnp.bincount(choice, length=E).astype(jnp.int32)
    rows = x.reshape(-1, D)[order // K]
    product = functools.partial(grouped_matmul, group_sizes=sizes, platform=platform)
    out = product(jax.nn.silu(product(rows, gate)) * product(rows, up), down)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    # Back in the tokens' order, so that the K results of a token are summed in the order of its choices.
    back = jnp.zeros((B * T * K, D), out.dtype).at[order].set(out, unique_indices=True).reshape(B, T, K, D)
    here = (experts < E)[..., None]
    y = jnp.sum(jnp.where(here, back, 0).astype(wide) * jnp.where(here, weights[..., None], 0).astype(wide), axis=2)
    return y.astype(x.dtype)
