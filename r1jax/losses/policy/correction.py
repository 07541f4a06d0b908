"""Corrections for samples that another policy drew than the one they are scored as: multipliers of a token's policy term.

The sampler computes with other kernels, in another precision or from older weights than the trainer. With ``k = pi_old /
pi_sampler``, of one token or of its sequence, each rule gives a weight without gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from r1jax.losses.policy.ratio import LOG_RATIO_BOUND, log_ratio
from r1jax.losses.sequences import sequence_mean, sequence_sum

Array = jax.Array


def truncated_weight(k: Array, low: float, high: float) -> Array:
    """``min(k, high)`` (TIS: Yao et al., "Your efficient RL framework secretly brings you off-policy training", 2025).

    Corrects the bias but for the largest weights. ``high``: 2 or so per token, 2 to 10 per sequence. ``low`` is not read.
    """
    return jnp.minimum(k, high)


def masked_weight(k: Array, low: float, high: float) -> Array:
    """``k`` where ``low <= k <= high``, else 0 (IcePop, Ring-1T, arXiv 2510.18855: 0.5 and 5 per token).

    Tokens on which sampler and trainer disagree teach nothing. For mixture-of-experts models.
    """
    return jnp.where((low <= k) & (k <= high), k, 0)


def rejection_weight(k: Array, low: float, high: float) -> Array:
    """1 where ``low <= k <= high``, else 0: what disagrees is left out, the rest is not reweighted. On sequences (geometric
    mean) this is the rejection mask of off-policy corrections; steadier than weights, and biased."""
    return jnp.where((low <= k) & (k <= high), 1.0, 0.0)


RULES: dict[str, Callable[[Array, float, float], Array]] = {
    "truncate": truncated_weight,
    "mask": masked_weight,
    "reject": rejection_weight,
}


def _of_token(difference: Array, counted: Array, sequence_index: Array | None) -> Array:
    return difference


def _of_sequence(difference: Array, counted: Array, sequence_index: Array | None) -> Array:
    return jnp.clip(sequence_sum(difference, counted, sequence_index), -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


# How the log-ratios of tokens become the one that a rule judges: per token; a sequence's product; its geometric mean.
LEVELS: dict[str, Callable[[Array, Array, Array | None], Array]] = {
    "token": _of_token,
    "sequence": _of_sequence,
    "geometric": sequence_mean,
}


def sampler_correction(
    old_logprobs: Array,
    sampler_logprobs: Array,
    counted: Array,
    sequence_index: Array | None = None,
    *,
    rule: str,
    level: str,
    low: float,
    high: float,
) -> Array:
    """The multiplier of each token's policy term, ``[B, T]``, without gradient.

    Args:
      old_logprobs, sampler_logprobs: ``[B, T]``, the same tokens under trainer and sampler.
      counted: bool ``[B, T]``, the tokens that belong to a sequence's product or mean.
      sequence_index: int ``[B, T]``; None: each row is one sequence.
      rule: ``truncate``, ``mask`` or ``reject``. level: ``token``, ``sequence`` (product) or ``geometric`` (mean).
      low, high: the bounds of k; see the rules.
    """
    difference = LEVELS[level](log_ratio(old_logprobs, sampler_logprobs), counted, sequence_index)
    return jax.lax.stop_gradient(RULES[rule](jnp.exp(difference), low, high))


def off_policy_mask(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    counted: Array,
    sequence_index: Array | None = None,
    *,
    delta: float,
) -> Array:
    """0 on sequences with A < 0 and ``mean_t log(pi_old / pi) > delta``, else 1; without gradient (DeepSeek-V3.2, arXiv
    2512.02556 section 3.1).

    A model learns most from its own mistakes; from those that it would hardly make any more it only gets unstable.
    """
    gone = sequence_mean(log_ratio(old_logprobs, logprobs), counted, sequence_index)
    return jax.lax.stop_gradient(jnp.where((advantages < 0) & (gone > delta), 0.0, 1.0))
