"""Sums and means over the sequences of packed rows, with each token holding its sequence's value."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def sequence_sum(values: Array, counted: Array, sequence_index: Array | None = None) -> Array:
    """Each token's entry is the sum over the counted tokens of its sequence.

    Args:
      values: ``[B, T]``. counted: bool ``[B, T]``.
      sequence_index: int ``[B, T]``. A sequence lies in one row, its tokens in any order there; any integers will do as
        names. None: each row is one sequence.

    Returns:
      ``[B, T]``.
    """
    values = jnp.where(counted, values, 0)
    if sequence_index is None:
        return jnp.broadcast_to(jnp.sum(values, axis=1, keepdims=True), values.shape)

    def row(values: Array, index: Array) -> Array:
        # Where a sequence's name comes first among the row's sorted names: unlike the name, it is below T.
        # method="sort": the default's scan fails on a mesh whose axes are explicit, jax.make_mesh's default.
        slot = jnp.searchsorted(jnp.sort(index), index, method="sort")
        return jax.ops.segment_sum(values, slot, num_segments=len(index))[slot]

    return jax.vmap(row)(values, sequence_index)


def sequence_mean(values: Array, counted: Array, sequence_index: Array | None = None) -> Array:
    """As ``sequence_sum``, divided by how many tokens of the sequence are counted; 0 where none is."""
    count = sequence_sum(jnp.ones_like(values), counted, sequence_index)
    return sequence_sum(values, counted, sequence_index) / jnp.maximum(count, 1)
