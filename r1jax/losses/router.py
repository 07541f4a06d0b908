"""Balance of a mixture of experts: DeepSeek-V3's sequence-wise loss, and its bias update, which is no loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from r1jax.losses.metrics import finished, masked_to_zero, same_shapes, weighted_mean
from r1jax.losses.sequences import sequence_mean

Array = jax.Array


def sequence_balance_loss(
    scores: Array, experts: Array, token_weight: Array, sequence_index: Array | None = None, *, coefficient: float
) -> tuple[Array, dict[str, Array]]:
    """The complementary sequence-wise balance loss (DeepSeek-V3, arXiv 2412.19437 eq. 17-20).

    For a sequence of T tokens ``coefficient * sum_e f_e P_e``, with ``f_e = E / (K T) * (how many of its tokens chose expert
    e)`` and ``P_e`` the mean over its tokens of e's score, scores being divided by their sum over experts. The gradient flows
    through P alone. 1 (times the coefficient) is perfect balance.

    Args:
      scores: ``[B, T, E]``, the gate's scores before any bias, not negative.
      experts: int ``[B, T, K]``, those that were chosen.
      token_weight: ``[B, T]``, from ``token_weights(rule="sequence_mean")`` over all tokens of the whole update, prompts
        included and padding not: then the loss is the mean over sequences, whatever the microbatching.
      sequence_index: int ``[B, T]``; None: each row is one sequence.
      coefficient: alpha; 1e-4 in DeepSeek-V3.

    Returns:
      ``(loss, metrics)``: ``balance`` (the weighted mean without the coefficient), ``tokens``, ``weight``, ``loss``.

    Raises:
      ValueError: arrays of other shapes.
    """
    if jnp.ndim(scores) != 3 or jnp.ndim(experts) != 3:
        raise ValueError(f"scores {jnp.shape(scores)} must be [B, T, E] and experts {jnp.shape(experts)} [B, T, K]")
    same_shapes("token_weight", token_weight, scores=scores[..., 0], experts=experts[..., 0], sequence_index=sequence_index)
    total, chosen = jnp.shape(scores)[-1], jnp.shape(experts)[-1]
    counted = jnp.asarray(token_weight) != 0
    scores = jnp.where(counted[..., None], jnp.asarray(scores, jnp.promote_types(jnp.result_type(scores), jnp.float32)), 1)
    sums = jnp.sum(scores, axis=-1, keepdims=True)
    shares = scores / jnp.where(sums > 0, sums, 1)
    hits = jnp.sum(jax.nn.one_hot(experts, total, dtype=shares.dtype), axis=-2)
    # One expert after the other: [B, T] sums over sequences, with E as the batch.
    load = jax.vmap(sequence_mean, in_axes=(-1, None, None), out_axes=-1)(hits, counted, sequence_index) * total / chosen
    weight, balance = masked_to_zero(token_weight, jnp.sum(jax.lax.stop_gradient(load) * shares, axis=-1))
    return finished(weight, coefficient * balance, {"balance": weighted_mean(balance, weight)})


def expert_load(experts: Array, counted: Array, total: int) -> Array:
    """How many tokens chose each expert: f32 ``[E]``. Sums over micro-batches and hosts are the update's load.

    Args:
      experts: int ``[B, T, K]``. counted: bool ``[B, T]``, false on padding and finished slots. total: E.
    """
    chosen = jax.nn.one_hot(experts, total, dtype=jnp.float32)
    return jnp.einsum("BTKE,BT->E", chosen, jnp.asarray(counted, jnp.float32), precision=jax.lax.Precision.HIGHEST)


def router_bias_update(bias: Array, load: Array, *, rate: float) -> Array:
    """The bias after an optimizer update: ``bias + rate * sign(mean load - load)`` (arXiv 2408.15664; 2412.19437 section
    2.1.2). Experts above the mean load lose, those below gain; the bias acts on the selection alone.

    Args:
      bias, load: ``[..., E]``; the load of the whole global batch. rate: gamma, 1e-3 in DeepSeek-V3's pre-training.
    """
    return bias + rate * jnp.sign(jnp.mean(load, axis=-1, keepdims=True) - load).astype(bias.dtype)
