"""Blocks of the decoding cache, the same for every family: in stacks, or layer by layer.

In stacks, a block is a tree of leaves ``[L, rows, ..., length, width]``, for layers that are scanned; a tuple of such trees
where a model has several stacks. Layer by layer it is a list of L trees of leaves ``[rows, ..., length, width]``, for a plain
loop over a few layers: where the compiler can't read a slice in place (CPU), a scan copies every layer's slice of the cache
for every token.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class InPlace(NamedTuple):
    """One layer's own block, to be written before it is read: the query's entry is then one of the block's.

    In stacks it is the other way round: a slice is only read, the query attends its own entry as a block of one, and the
    entries of all layers are written at once after the scan.
    """

    block: Any


def is_by_layer(block: Any) -> bool:
    """Whether a block is layer by layer."""
    return isinstance(block, list)


def by_layer(stacks: Any) -> list[Any]:
    """A tree of stacks ``[L, ...]``, or a tuple of such trees, as one tree for each layer; what is so already is left alone."""
    if is_by_layer(stacks):
        return stacks
    if isinstance(stacks, tuple):
        return [layer for stack in stacks for layer in by_layer(stack)]
    layers = len(jax.tree.leaves(stacks)[0])
    return [jax.tree.map(lambda x, i=i: x[i], stacks) for i in range(layers)]


def is_axes(x: Any) -> bool:
    """Whether x is the logical axes of one array, and no tuple of trees of them."""
    return isinstance(x, tuple) and all(axis is None or isinstance(axis, str) for axis in x)


def axes_by_layer(axes: Any, stacks: Any) -> list[Any]:
    """The logical axes of ``by_layer(stacks)``, from those of ``stacks``."""
    if isinstance(stacks, tuple):
        return [layer for some, stack in zip(axes, stacks) for layer in axes_by_layer(some, stack)]
    layers = len(jax.tree.leaves(stacks)[0])
    return [jax.tree.map(lambda a: a[1:], axes, is_leaf=is_axes)] * layers


def write_prompts(block: Any, entries: Any) -> Any:
    """Writes prompts' entries ``[L, rows, ..., T, width]`` from position 0 on."""
    return jax.tree.map(lambda old, new: old.at[..., : new.shape[-2], :].set(new.astype(old.dtype)), block, entries)


def write_entry(stacks: Any, entries: Any, places: jax.Array) -> Any:
    """Writes each row's one entry, ``[L, rows, ..., 1, width]``, at its place ``[rows]``; past the end, nowhere."""

    def put(old, new):
        L, rows, *_, length, width = old.shape
        new = new.astype(old.dtype).reshape(L, rows, -1, width).swapaxes(0, 1)
        # mode="drop": a lane at the end of its block is a finished one, waiting for the host.
        flat = old.reshape(L, rows, -1, length, width).at[:, jnp.arange(rows), :, places].set(new, mode="drop")
        return flat.reshape(old.shape)

    return jax.tree.map(put, stacks, entries)


def write_layers_entry(layer: Any, entries: Any, places: jax.Array) -> Any:
    """``write_entry`` of one layer: leaves ``[rows, ..., length, width]``."""
    one, new = (jax.tree.map(lambda x: x[None], tree) for tree in (layer, entries))
    return jax.tree.map(lambda x: x[0], write_entry(one, new, places))
