"""Models: definitions in Flax, one interface for all architectures (``interface.py``).

Parameters are nested dicts of arrays; ``forward`` and its neighbours dispatch on ``config.architecture``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models import deepseek, dense
from r1jax.models.cache import by_layer
from r1jax.models.config import DEEPSEEK, DENSE, Experts, LatentAttention, ModelConfig, RopeScaling, YarnScaling
from r1jax.models.interface import Cache, Model
from r1jax.models.scalar_head import init_scalar_head, token_scores
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
    "init_scalar_head",
    "is_state",
    "layers_apart",
    "logical_axes",
    "mtp_hidden",
    "param_shardings",
    "route_shape",
    "statistics",
    "token_scores",
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


def mtp_hidden(
    config: ModelConfig,
    params: Any,
    hidden: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    remat: str = "none",
) -> tuple[jax.Array, dict[str, Any]]:
    """The states ``[M, B, T, D]`` from which multi-token prediction guesses, for models that have it
    (``num_nextn_predict_layers``), and what they tell besides, for ``statistics``.

    Args:
      config, params, tokens, positions, segment_ids, remat: as ``forward`` takes them.
      hidden: what ``forward`` gave.

    Raises:
      ValueError: a model without multi-token prediction.
    """
    if not config.num_nextn_predict_layers:
        raise ValueError("the model has no multi-token prediction: num_nextn_predict_layers is 0")
    family = _FAMILIES[config.architecture]
    return family.mtp_hidden(config, params, hidden, tokens, positions, segment_ids, remat=REMAT_POLICIES[remat])


def head_weight(config: ModelConfig, params: Any) -> jax.Array:
    """The output head ``[D, V]``.

    Raises:
      ValueError: a reward model, which has none.
    """
    if config.num_labels:
        raise ValueError(
            "the model is a reward model: its scalar head gives a score and no tokens (num_labels is 1); name a language model"
        )
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


def layers_apart(config: ModelConfig, params: Any) -> Any:
    """The parameters with each stack of layers as a list of layers, for ``forward`` on a cache that is layer by layer: a second
    copy of them, without which every token would copy each layer's slice out of its stack."""

    def apart(name: str, axes: Any) -> Any:
        leaves = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
        return by_layer(params[name]) if all(leaf[:1] == ("layer",) for leaf in leaves) else params[name]

    return {name: apart(name, axes) for name, axes in logical_axes(config).items()}


def route_shape(config: ModelConfig) -> tuple[int, int, str] | None:
    """``(layers, experts per token, dtype)`` of the expert choices that a sampler may record; None: the model has no experts."""
    return _FAMILIES[config.architecture].route_shape(config)


def is_state(config: ModelConfig) -> Any:
    """Nested dict of bools: the parameters that no gradient moves, but the ``statistics`` of an update."""
    return _FAMILIES[config.architecture].schema(config).is_state()


def statistics(config: ModelConfig, aux: dict[str, Any], counted: jax.Array) -> dict[str, Any]:
    """What an update of the state parameters needs of one forward pass, in the place of each in the tree of parameters. Sums over
    micro-batches are those of the update.

    Args:
      aux: of ``forward``. counted: bool ``[B, T]``, false on padding.
    """
    return _FAMILIES[config.architecture].statistics(config, aux, counted)


def param_shardings(config: ModelConfig, layout: Layout) -> Any:
    """Nested dict of ``NamedSharding`` under a layout."""
    return _FAMILIES[config.architecture].schema(config).shardings(layout)


def init_params(config: ModelConfig, key: jax.Array, layout: Layout | None = None, dtype: Any = jnp.float32) -> Any:
    """Random parameters, laid out as they are made."""
    return _FAMILIES[config.architecture].schema(config).init(key, layout, dtype)


def count_params(config: ModelConfig) -> int:
    """Number of parameters."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(abstract_params(config)))
