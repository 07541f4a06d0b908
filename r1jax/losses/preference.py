"""Losses on judgements: reward models from pairs and from labels, and DPO. One entry per pair or response, of any shape.

Weights work as token weights do: they are given for the whole update, 0 takes an entry out, and nothing here divides by a
count. For the plain mean over n pairs each weight is ``1 / n``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from r1jax.losses.metrics import finished, masked_to_zero, same_shapes, weighted_mean

Array = jax.Array


def pairwise_reward_loss(
    chosen: Array, rejected: Array, weight: Array, *, margin: Array | float = 0.0
) -> tuple[Array, dict[str, Array]]:
    """Bradley-Terry: ``-sum weight * log sigmoid(chosen - rejected - margin)``. For the helpfulness reward model.

    Args:
      chosen, rejected: scores of the better and of the worse response.
      weight: one per pair.
      margin: by how much the better one must win, one for all or one per pair (Llama 2, arXiv 2307.09288 eq. 2).

    Returns:
      ``(loss, metrics)``: ``pair_accuracy`` (share with chosen above rejected; a tie counts half), ``score_margin``,
      ``chosen_score``, ``rejected_score`` (weighted means), ``tokens`` (pairs), ``weight``, ``loss``.

    Raises:
      ValueError: arrays of different shapes.
    """
    same_shapes("chosen", chosen, rejected=rejected, weight=weight)
    weights, chosen, rejected = masked_to_zero(weight, chosen, rejected)
    gap = chosen - rejected
    metrics = {
        "pair_accuracy": weighted_mean((gap > 0) + 0.5 * (gap == 0), weights),
        "score_margin": weighted_mean(gap, weights),
        "chosen_score": weighted_mean(chosen, weights),
        "rejected_score": weighted_mean(rejected, weights),
    }
    _, margin = masked_to_zero(weight, jnp.broadcast_to(margin, gap.shape))
    return finished(weights, -jax.nn.log_sigmoid(gap - margin), metrics)


def pointwise_reward_loss(scores: Array, labels: Array, weight: Array) -> tuple[Array, dict[str, Array]]:
    """Binary cross-entropy of ``sigmoid(scores)`` with labels in [0, 1]: 1 is safe. For the safety reward model.

    Returns:
      ``(loss, metrics)``: ``label_accuracy`` (share on the label's side of 1/2), ``predicted_mean`` and ``label_mean``
      (calibration in the large), ``tokens`` (responses), ``weight``, ``loss``.

    Raises:
      ValueError: arrays of different shapes.
    """
    same_shapes("scores", scores, labels=labels, weight=weight)
    weights, scores, labels = masked_to_zero(weight, scores, labels)
    metrics = {
        "label_accuracy": weighted_mean((scores > 0) == (labels > 0.5), weights),
        "predicted_mean": weighted_mean(jax.nn.sigmoid(scores), weights),
        "label_mean": weighted_mean(labels, weights),
    }
    token_loss = -(labels * jax.nn.log_sigmoid(scores) + (1 - labels) * jax.nn.log_sigmoid(-scores))
    return finished(weights, token_loss, metrics)


def dpo_loss(
    chosen_logprobs: Array,
    rejected_logprobs: Array,
    ref_chosen_logprobs: Array,
    ref_rejected_logprobs: Array,
    weight: Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[Array, dict[str, Array]]:
    """Direct preference optimisation (arXiv 2305.18290 eq. 7): Bradley-Terry on ``beta * (log pi - log pi_ref)``.

    Args:
      chosen_logprobs ... ref_rejected_logprobs: of whole responses: sums over their tokens (``sequence_sum``).
      weight: one per pair.
      beta: how dearly a distance from the reference is bought.
      label_smoothing: the share of pairs taken to be labelled the wrong way round (conservative DPO), below 1/2.

    Returns:
      ``(loss, metrics)``: ``pair_accuracy``, ``reward_margin``, ``chosen_reward``, ``rejected_reward`` (implicit rewards),
      ``tokens`` (pairs), ``weight``, ``loss``.

    Raises:
      ValueError: arrays of different shapes, numbers out of range.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, but is {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), but is {label_smoothing}")
    same_shapes(
        "chosen_logprobs",
        chosen_logprobs,
        rejected_logprobs=rejected_logprobs,
        ref_chosen_logprobs=ref_chosen_logprobs,
        ref_rejected_logprobs=ref_rejected_logprobs,
        weight=weight,
    )
    references = jax.lax.stop_gradient((jnp.asarray(ref_chosen_logprobs), jnp.asarray(ref_rejected_logprobs)))
    weights, new_chosen, new_rejected, ref_chosen, ref_rejected = masked_to_zero(
        weight, chosen_logprobs, rejected_logprobs, *references
    )
    chosen, rejected = new_chosen - ref_chosen, new_rejected - ref_rejected
    gap = beta * (chosen - rejected)  # not a difference of products: fused, those of a tie would differ
    metrics = {
        "pair_accuracy": weighted_mean((gap > 0) + 0.5 * (gap == 0), weights),
        "reward_margin": weighted_mean(gap, weights),
        "chosen_reward": weighted_mean(beta * chosen, weights),
        "rejected_reward": weighted_mean(beta * rejected, weights),
    }
    token_loss = -(1 - label_smoothing) * jax.nn.log_sigmoid(gap) - label_smoothing * jax.nn.log_sigmoid(-gap)
    return finished(weights, token_loss, metrics)
