"""Writing into the decoding cache, the same for every family: entries are leaves ``[L, rows, T, ...]``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models.interface import Cache


def write(cache: Cache, entries: Any) -> Cache:
    """Writes new entries: a prefilled prompt's from 0, or each lane's one entry at its ``own_length``."""
    if cache.own is None:
        prompt = jax.tree.map(
            lambda block, new: block.at[:, :, : new.shape[2]].set(new.astype(block.dtype)), cache.prompt, entries
        )
        return cache._replace(prompt=prompt)
    rows = jnp.arange(cache.own_length.shape[0])

    def put(block, new):
        # mode="drop": a lane at the end of its block (a finished one, waiting for the host) writes nowhere.
        return block.at[:, rows, cache.own_length].set(new[:, :, 0].astype(block.dtype), mode="drop")

    return cache._replace(own=jax.tree.map(put, cache.own, entries))
