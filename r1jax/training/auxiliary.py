"""Losses and figures beside that of the stage: of a mixture's experts, of multi-token prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from r1jax.losses import mtp_loss, sequence_balance_loss, weighted_mean
from r1jax.models import ModelConfig
from r1jax.models.logprobs import mtp_logprobs

Metrics = dict[str, jax.Array]
# (aux of the forward pass, batch) -> (loss, metrics); the loss is a sum over tokens, weighted for the whole update.
AuxiliaryLoss = Callable[[dict[str, Any], Any], tuple[jax.Array, Metrics]]


def no_auxiliary_loss(aux: dict[str, Any], batch: Any) -> tuple[jax.Array, Metrics]:
    """For models that tell nothing, and stages that do not listen."""
    return jnp.zeros(()), {}


def router_loss(*, balance: float = 0.0, replayed: bool = True) -> AuxiliaryLoss:
    """The sequence-wise balance loss of the layers of experts (arXiv 2412.19437 eq. 17-20), summed over layers, and how the
    router does.

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

            def layer(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
                # Eq. 18 counts the best K by the scores alone, not those that the bias and the groups let through.
                best = jax.lax.top_k(scores, aux["experts"].shape[-1])[1]
                value, told = sequence_balance_loss(
                    scores, best, batch.balance_weight, batch.sequence_index, coefficient=balance
                )
                return value, told["balance"] * told["weight"]

            losses, means = jax.vmap(layer, in_axes=2)(aux["scores"])
            total, metrics["router_balance"] = jnp.sum(losses), jax.lax.stop_gradient(jnp.mean(means))
        if batch.routes is not None and not replayed:
            here, there = (jnp.sort(x.astype(jnp.int32), axis=-1) for x in (aux["experts"], batch.routes))
            flipped = jnp.mean(jnp.any(here != there, axis=-1), axis=-1)
            metrics["router_flips"] = weighted_mean(flipped, jnp.asarray(batch.token_weight))
        return total, metrics

    return loss


@dataclasses.dataclass(frozen=True)
class PredictAhead:
    """The loss of a model's modules of multi-token prediction (``losses.mtp_loss``), under the batch's token weights.

    Attributes:
      coefficient: lambda of the paper.
      alone: the modules learn and the model that they look ahead of holds still: its hidden states, embedding and head take no
        gradient from here. For RL, whose policy is to move by its own loss only.
    """

    coefficient: float
    alone: bool = False

    def __call__(
        self, config: ModelConfig, params: Any, batch: Any, hidden: jax.Array, **passes: Any
    ) -> tuple[jax.Array, Metrics, dict[str, Any]]:
        """``(loss, metrics, aux)``; ``mtp_cross_entropy`` is the loss without its coefficient, per weight of all tokens, so that
        micro-steps' merge exactly.

        Args:
          config, params, batch, hidden: as ``mtp_logprobs`` takes them; ``passes`` are its other arguments.
        """
        if self.alone:
            hidden = jax.lax.stop_gradient(hidden)
            params = {name: part if name == "mtp" else jax.lax.stop_gradient(part) for name, part in params.items()}
        guesses, aux = mtp_logprobs(config, params, batch, hidden, **passes)
        value, _ = mtp_loss(guesses, batch.token_weight, batch.positions, coefficient=self.coefficient)
        weight = self.coefficient * jnp.sum(jnp.asarray(batch.token_weight))
        mean = jax.lax.stop_gradient(value) / jnp.where(weight == 0, 1, weight)
        return value, {"mtp_cross_entropy": mean}, aux
