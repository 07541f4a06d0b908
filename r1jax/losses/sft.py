"""Cross-entropy: supervised fine-tuning and multi-token prediction, under the same token weights as everything else."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from r1jax.losses.metrics import finished, masked_to_zero, same_shapes, weighted_mean

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
    same_shapes("logprobs", logprobs, token_weight=token_weight, entropy=entropy)
    weight, token_loss = masked_to_zero(token_weight, -logprobs)
    metrics = {"cross_entropy": weighted_mean(token_loss, weight)}
    if entropy is not None:
        metrics["entropy"] = weighted_mean(jnp.asarray(entropy, weight.dtype), weight)
    return finished(weight, token_loss, metrics)


def mtp_loss(
    logprobs: Array, token_weight: Array, positions: Array, *, coefficient: float
) -> tuple[Array, dict[str, Array]]:
    """Multi-token prediction (DeepSeek-V3, arXiv 2412.19437 eq. 24-25): ``coefficient / M`` times the sum over the M depths
    of their cross-entropies.

    As in the paper a depth's sum is divided by the count of all tokens, not by the fewer that it can predict: the token
    weights are those of the main loss.

    Args:
      logprobs: ``[M, B, T]``; entry ``[k - 1, b, t]`` is what depth k, looking from position ``t - 1 - k``, says of token t.
      token_weight: ``[B, T]``, from ``token_weights`` over the whole update.
      positions: int ``[B, T]``, of the token in its sequence. Depth k has nothing to say of positions up to k.
      coefficient: lambda; 0.3, later 0.1, in DeepSeek-V3's pre-training.

    Returns:
      ``(loss, metrics)``: ``mtp_cross_entropy`` (weighted mean over depths and tokens), ``tokens``, ``weight``, ``loss``.

    Raises:
      ValueError: arrays of other shapes.
    """
    if jnp.ndim(logprobs) != 3:
        raise ValueError(f"logprobs must be [depths, B, T], but has shape {jnp.shape(logprobs)}")
    same_shapes("logprobs[0]", logprobs[0], token_weight=token_weight, positions=positions)
    depths = jnp.shape(logprobs)[0]
    said = jnp.asarray(positions)[None] > jnp.arange(1, depths + 1)[:, None, None]
    weight, token_loss = masked_to_zero(jnp.where(said, jnp.asarray(token_weight)[None], 0), -logprobs)
    metrics = {"mtp_cross_entropy": weighted_mean(token_loss, weight)}
    return finished(weight, coefficient / depths * token_loss, metrics)
