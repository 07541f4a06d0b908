"""Writing into the decoding cache, the same for every family: blocks' leaves are ``[L, rows, ..., length, width]``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models.interface import Cache


def write(cache: Cache, entries: Any) -> Cache:
    """Writes new entries ``[L, rows, ..., T, width]``: a prefilled prompt's from 0, or each lane's one at its ``own_length``."""
    if cache.own is None:
        return cache._replace(prompt=jax.tree.map(_put_first, cache.prompt, entries))
    return cache._replace(own=jax.tree.map(lambda *leaves: _put_at(*leaves, cache.own_length), cache.own, entries))


def _put_first(block: jax.Array, new: jax.Array) -> jax.Array:
    return block.at[..., : new.shape[-2], :].set(new.astype(block.dtype))


def _put_at(block: jax.Array, new: jax.Array, places: jax.Array) -> jax.Array:
    L, rows, *_, length, width = block.shape
    new = new.astype(block.dtype).reshape(L, rows, -1, width).swapaxes(0, 1)
    # mode="drop": a lane at the end of its block (a finished one, waiting for the host) writes nowhere.
    flat = block.reshape(L, rows, -1, length, width).at[:, jnp.arange(rows), :, places].set(new, mode="drop")
    return flat.reshape(block.shape)
