"""Grouped matrix product: rows sorted by group, each group times a matrix of its own.

One signature. On TPU it is ``jax.lax.ragged_dot``, which compiles to a kernel there; elsewhere that would be a dense product
with every group's matrix, so the reference stands in: a scan over blocks of rows, each of one group. A tuned GPU kernel will
come behind the same signature.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def grouped_matmul(x: Array, kernels: Array, group_sizes: Array, *, platform: str) -> Array:
    """``out[m] = x[m] @ kernels[g]`` for row m of group g.

    Args:
      x: ``[M, D]``, rows in order of their groups. Rows past the sum of ``group_sizes`` belong to none: what they hold, NaN
        included, reaches nothing, and their results and gradients are 0.
      kernels: ``[E, D, F]``.
      group_sizes: int32 ``[E]``.
      platform: of the mesh that this is compiled for, which need not be the default backend's.

    Returns:
      ``[M, F]`` in the dtype of ``x``; sums are float32 at least.
    """
    implementation = ragged if platform == "tpu" else blocked
    return implementation(x, kernels, jnp.asarray(group_sizes, jnp.int32))


def _precision(x: Array) -> jax.lax.Precision | None:
    # f32 products are not f32 by default on TPU and H200; bfloat16 ones are exact before they are summed.
    return None if x.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST


def ragged(x: Array, kernels: Array, group_sizes: Array) -> Array:
    """``jax.lax.ragged_dot``, with rows past the end cleared before and after: kernels leave them as they find memory."""
    belongs = (jnp.arange(len(x)) < jnp.sum(group_sizes))[:, None]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    out = jax.lax.ragged_dot(
        jnp.where(belongs, x, 0), kernels, group_sizes, precision=_precision(x), preferred_element_type=wide
    )
    return jnp.where(belongs, out, 0).astype(x.dtype)


# ---------------------------------------------------------------------------------------------- the reference
def _block(rows: int, groups: int) -> int:
    """Rows of a block: about half of what a group has, so that little is padding; a power of two from 8 to 128."""
    return int(2 ** np.clip(np.round(np.log2(max(rows / groups / 2, 1))), 3, 7))


def _blocks(rows: int, group_sizes: Array) -> tuple[int, Array, Array]:
    """``(block size, place of each row among the blocks' rows, group of each block)``. Each group begins a block; rows past
    the end have a place past the end."""
    groups = len(group_sizes)
    size = _block(rows, groups)
    count = -(-rows // size) + groups  # at most: each group leaves one block unfilled
    padded = -(-group_sizes // size) * size
    ends, row = jnp.cumsum(group_sizes), jnp.arange(rows)
    group = jnp.minimum(jnp.searchsorted(ends, row, side="right"), groups - 1)
    place = jnp.cumsum(padded)[group] - padded[group] + row - (ends - group_sizes)[group]
    place = jnp.where(row < ends[-1], place, count * size)
    of_block = jnp.searchsorted(jnp.cumsum(padded), jnp.arange(count) * size, side="right")
    return size, place, jnp.minimum(of_block, groups - 1)


def _spread(x: Array, size: int, place: Array, blocks: int) -> Array:
    """Rows ``[M, D]`` into blocks ``[blocks, size, D]``, the rest 0."""
    return jnp.zeros((blocks * size, x.shape[1]), x.dtype).at[place].set(x, mode="drop").reshape(blocks, size, -1)


def _gather(blocks: Array, place: Array) -> Array:
    return blocks.reshape(-1, blocks.shape[-1]).at[place].get(mode="fill", fill_value=0)


def _products(x: Array, kernels: Array, size: int, place: Array, of_block: Array, equation: str) -> Array:
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def one(_, inputs):
        rows, group = inputs
        y = jnp.einsum(equation, rows, kernels[group], precision=_precision(x), preferred_element_type=wide)
        return None, y.astype(x.dtype)

    _, out = jax.lax.scan(one, None, (_spread(x, size, place, len(of_block)), of_block))
    return _gather(out, place)


@jax.custom_vjp
def blocked(x: Array, kernels: Array, group_sizes: Array) -> Array:
    """The reference: a scan over blocks of rows. Work grows with the rows, not with the groups."""
    return _forward(x, kernels, group_sizes)[0]


def _forward(x, kernels, group_sizes):
    size, place, of_block = _blocks(len(x), group_sizes)
    return _products(x, kernels, size, place, of_block, "MD,DF->MF"), (x, kernels, group_sizes)


def _backward(saved, cotangent):
    # By hand: differentiating the scan would keep every block's matrix, once per block.
    x, kernels, group_sizes = saved
    size, place, of_block = _blocks(len(x), group_sizes)
    by_x = _products(cotangent, kernels, size, place, of_block, "MF,DF->MD")
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def one(total, inputs):
        rows, outs, group = inputs
        product = jnp.einsum("MD,MF->DF", rows, outs, precision=_precision(x), preferred_element_type=wide)
        return total.at[group].add(product), None

    spread = functools.partial(_spread, size=size, place=place, blocks=len(of_block))
    by_kernels, _ = jax.lax.scan(one, jnp.zeros(kernels.shape, wide), (spread(x), spread(cotangent), of_block))
    return by_x, by_kernels.astype(kernels.dtype), np.zeros(group_sizes.shape, jax.dtypes.float0)


blocked.defvjp(_forward, _backward)
