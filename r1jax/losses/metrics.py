"""Metrics of losses: averages under the loss's own token weights, and how those of micro-steps become an update's.

A name says how it combines: ``loss``, ``weight``, ``tokens``, ``clamped`` and ``router_balance`` add up, ``*_max`` is a maximum, everything
else is an average weighted by ``weight``, the sum of the token weights that it was taken over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

Array = jax.Array

SUMS = ("loss", "weight", "tokens", "clamped", "router_balance")


def weighted_mean(values: Array, token_weight: Array) -> Array:
    """``sum(token_weight * values) / sum(token_weight)``; 0 where nothing has weight. Weightless values may be NaN."""
    total = jnp.sum(token_weight)
    values = jnp.where(token_weight != 0, values, 0)
    return jnp.sum(token_weight * values) / jnp.where(total == 0, 1, total)


def same_shapes(name: str, array: Array, **others: Array | None) -> None:
    """Refuses arrays whose shape is not that of the one called ``name``; None is no array.

    Raises:
      ValueError: naming both.
    """
    for other, value in others.items():
        if value is not None and jnp.shape(value) != jnp.shape(array):
            raise ValueError(f"{other} has shape {jnp.shape(value)}, {name} {jnp.shape(array)}; they must be one")


def masked_to_zero(weight: Array, *arrays: Array) -> tuple[Array, ...]:
    """``(weight, *arrays)`` in the dtype that the loss is computed in (float32 at least), the arrays 0 where nothing is
    counted: no NaN of padding reaches a product, forwards or backwards."""
    weight = jnp.asarray(weight)
    counted, dtype = weight != 0, jnp.result_type(jnp.float32, *arrays)
    return weight.astype(dtype), *(jnp.where(counted, jnp.asarray(array, dtype), 0) for array in arrays)


def finished(weight: Array, token_loss: Array, metrics: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    """``(loss, metrics)``: the weighted sum, and the metrics with what every loss reports, without gradient."""
    loss = jnp.sum(weight * token_loss)
    metrics = metrics | {"tokens": jnp.sum(weight != 0), "weight": jnp.sum(weight), "loss": loss}
    return loss, jax.tree.map(lambda x: jax.lax.stop_gradient(x.astype(weight.dtype)), metrics)


def merge_metrics(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of one update from those of its micro-steps, on the host.

    Args:
      parts: what the losses gave, one mapping per micro-step, all with the same names.

    Returns:
      The same names, as if the update had been one micro-step.

    Raises:
      ValueError: no parts, or parts with different names.
    """
    parts = [{name: float(value) for name, value in part.items()} for part in parts]
    if not parts:
        raise ValueError("an update without micro-steps has no metrics")
    names = parts[0].keys()
    for part in parts:
        if part.keys() != names:
            raise ValueError(f"micro-steps gave different metrics: {sorted(names ^ part.keys())}")
    total = sum(part["weight"] for part in parts)
    merged = {}
    for name in names:
        if name in SUMS:
            merged[name] = sum(part[name] for part in parts)
        elif name.endswith("_max"):
            merged[name] = max(part[name] for part in parts)
        else:
            merged[name] = sum(part["weight"] * part[name] for part in parts) / total if total else 0.0
    return merged
