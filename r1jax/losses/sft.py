"""Supervised fine-tuning: cross-entropy under the same token weights as everything else."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from r1jax.losses.metrics import weighted_mean

Array = jax.Array


def sft_loss(logprobs: Array, token_weight: Array, *, entropy: Array | None = None) -> tuple[Array, dict[str, Array]]:
    """Cross-entropy in nats: ``-sum_t token_weight_t * logprobs_t``. For cold start, SFT and distillation by samples.

    Args:
      logprobs: ``[B, T]``, of the tokens to be learnt.
      token_weight: ``[B, T]``, from ``token_weights`` over the whole update (usually ``token_mean``).
      entropy: ``[B, T]``; reported.

    Returns:
      ``(loss, metrics)``: ``cross_entropy`` (weighted mean per token), ``entropy``, ``tokens``, ``weight``, ``loss``.

    Raises:
      ValueError: arrays of different shapes.
    """
    for name, array in (("token_weight", token_weight), ("entropy", entropy)):
        if array is not None and jnp.shape(array) != jnp.shape(logprobs):
            raise ValueError(f"{name} has shape {jnp.shape(array)}, logprobs {jnp.shape(logprobs)}; all are [B, T]")
    weight = jnp.asarray(token_weight, jnp.promote_types(jnp.result_type(logprobs), jnp.float32))
    token_loss = -jnp.where(weight != 0, jnp.asarray(logprobs, weight.dtype), 0)
    loss = jnp.sum(weight * token_loss)
    metrics = {"cross_entropy": weighted_mean(token_loss, weight)}
    if entropy is not None:
        metrics["entropy"] = weighted_mean(jnp.asarray(entropy, weight.dtype), weight)
    metrics |= {"tokens": jnp.sum(weight != 0).astype(weight.dtype), "weight": jnp.sum(weight), "loss": loss}
    return loss, jax.tree.map(jax.lax.stop_gradient, metrics)
