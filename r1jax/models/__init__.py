"""Models: definitions in Flax, one interface for all architectures (``interface.py``).

Parameters are nested dicts of arrays; ``forward`` and its neighbours dispatch on ``config.architecture``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models import deepseek, dense
from r1jax.models.config import DEEPSEEK, DENSE, Experts, LatentAttention, ModelConfig, RopeScaling, YarnScaling
from r1jax.models.interface import Cache, Model
from r1jax.sharding import Layout

__all__ = [
    "REMAT_POLICIES",
    "Cache",
    "Experts",
    "LatentAttention",
    "Model",
    "ModelConfig",
    "RopeScaling",
    "YarnScaling",
    "abstract_params",
    "block_axes",
    "count_params",
    "forward",
    "head_weight",
    "init_block",
    "init_params",
    "logical_axes",
    "param_shardings",
]

_FAMILIES = dict.fromkeys(DENSE, dense) | dict.fromkeys(DEEPSEEK, deepseek)

# What a layer keeps for the backward pass: everything, nothing but its input, or the results of matrix products.
REMAT_POLICIES = {
    "none": None,
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def forward(
    config: ModelConfig,
    params: Any,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    cache: Cache | None = None,
    routes: jax.Array | None = None,
    *,
    remat: str = "none",
) -> tuple[jax.Array, Cache | None, dict[str, Any]]:
    """Runs the decoder up to its final norm; the head is ``ops.head``'s.

    Args:
      config: static.
      params: nested dict; computation is in their dtype.
      tokens, positions: int32 ``[B, T]``.
      segment_ids: int32 ``[B, T]``, 0 for padding; None: one segment a row, no padding.
      cache: see ``Cache``; None for packed rows without one.
      routes: recorded expert choices ``[B, T, L, K]`` to replay, for models with experts.
      remat: a name of ``REMAT_POLICIES``.

    Returns:
      hidden ``[B, T, D]``, the cache with the new entries (or None), and ``aux``: what a family has to tell besides
      (expert choices, load, balance terms); empty for dense models.
    """
    family = _FAMILIES[config.architecture]
    return family.forward(config, params, tokens, positions, segment_ids, cache, routes, remat=REMAT_POLICIES[remat])


def head_weight(config: ModelConfig, params: Any) -> jax.Array:
    """The output head ``[D, V]``."""
    return _FAMILIES[config.architecture].head_weight(config, params)


def init_block(config: ModelConfig, rows: int, length: int, dtype: Any = jnp.float32) -> Any:
    """An empty block of cache, all leaves ``[L, rows, length, ...]``."""
    return _FAMILIES[config.architecture].init_block(config, rows, length, dtype)


def block_axes(config: ModelConfig) -> Any:
    """Logical axes of ``init_block``'s leaves."""
    return _FAMILIES[config.architecture].block_axes(config)


def abstract_params(config: ModelConfig, dtype: Any = jnp.float32) -> Any:
    """Nested dict of ``jax.ShapeDtypeStruct``."""
    return _FAMILIES[config.architecture].schema(config).shapes(dtype)


def logical_axes(config: ModelConfig) -> Any:
    """Nested dict of tuples of logical axes."""
    return _FAMILIES[config.architecture].schema(config).axes()


def param_shardings(config: ModelConfig, layout: Layout) -> Any:
    """Nested dict of ``NamedSharding`` under a layout."""
    return _FAMILIES[config.architecture].schema(config).shardings(layout)


def init_params(config: ModelConfig, key: jax.Array, layout: Layout | None = None, dtype: Any = jnp.float32) -> Any:
    """Random parameters, laid out as they are made."""
    return _FAMILIES[config.architecture].schema(config).init(key, layout, dtype)


def count_params(config: ModelConfig) -> int:
    """Number of parameters."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(abstract_params(config)))
