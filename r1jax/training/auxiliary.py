"""Losses and figures of what a forward pass tells besides hidden states: of a mixture's experts, so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from r1jax.losses import sequence_balance_loss, weighted_mean

Metrics = dict[str, jax.Array]
# (aux of the forward pass, batch) -> (loss, metrics); the loss is a sum over tokens, weighted for the whole update.
AuxiliaryLoss = Callable[[dict[str, Any], Any], tuple[jax.Array, Metrics]]


def no_auxiliary_loss(aux: dict[str, Any], batch: Any) -> tuple[jax.Array, Metrics]:
    """For models that tell nothing, and stages that do not listen."""
    return jnp.zeros(()), {}


def router_loss(*, balance: float = 0.0, replayed: bool = True) -> AuxiliaryLoss:
    """The sequence-wise balance loss of the layers of experts, summed over layers, and how the router does.

    Args:
      balance: the loss's coefficient; above 0 ``batch.balance_weight`` is read.
      replayed: whether the pass took ``batch.routes``. If not, and they are there, ``router_flips`` is the share of (token,
        layer) whose set of experts differs from the sampler's, under the batch's token weights.
    """

    def loss(aux: dict[str, Any], batch: Any) -> tuple[jax.Array, Metrics]:
        total, metrics = jnp.zeros(()), {}
        if "experts" not in aux:
            return total, metrics
        if balance:

            def layer(scores: jax.Array, experts: jax.Array) -> tuple[jax.Array, jax.Array]:
                value, told = sequence_balance_loss(
                    scores, experts, batch.balance_weight, batch.sequence_index, coefficient=balance
                )
                return value, told["balance"] * told["weight"]

            losses, means = jax.vmap(layer, in_axes=2)(aux["scores"], aux["experts"])
            total, metrics["router_balance"] = jnp.sum(losses), jax.lax.stop_gradient(jnp.mean(means))
        if batch.routes is not None and not replayed:
            here, there = (jnp.sort(x.astype(jnp.int32), axis=-1) for x in (aux["experts"], batch.routes))
            flipped = jnp.mean(jnp.any(here != there, axis=-1), axis=-1)
            metrics["router_flips"] = weighted_mean(flipped, jnp.asarray(batch.token_weight))
        return total, metrics

    return loss
