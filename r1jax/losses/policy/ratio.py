"""Importance ratios: how much likelier the policy makes what the old policy sampled, per token or per sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from r1jax.losses.sequences import sequence_mean

Array = jax.Array

# exp(20) is 4.9e8. A token whose probability changed by more says that something is broken, not by how much.
LOG_RATIO_BOUND = 20.0

# What a log-probability counts as at least. No number that a model gives is lower; -inf less -inf would be NaN.
LOGPROB_FLOOR = -1e4


def floored(logprobs: Array) -> Array:
    """Log-probabilities, no lower than ``LOGPROB_FLOOR``, with no gradient below: -inf becomes a number, NaN stays."""
    return jnp.maximum(logprobs, LOGPROB_FLOOR)


def log_ratio(logprobs: Array, other: Array) -> Array:
    """``logprobs - other``, cut to plus and minus ``LOG_RATIO_BOUND``, with no gradient beyond."""
    return jnp.clip(logprobs - other, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def token_ratio(logprobs: Array, old_logprobs: Array) -> Array:
    """``r_t = pi(o_t) / pi_old(o_t)`` for each token (arXiv 2402.03300 eq. 3). GRPO, DAPO, CISPO: the default."""
    return jnp.exp(log_ratio(logprobs, old_logprobs))


def sequence_ratio(logprobs: Array, old_logprobs: Array, counted: Array, sequence_index: Array | None = None) -> Array:
    """``s_i = (pi(o_i) / pi_old(o_i)) ** (1 / |o_i|)``, on each token of sequence i (GSPO, arXiv 2507.18071).

    Steadier than token ratios where rewards belong to the sequence: long answers, mixture-of-experts models.

    Args:
      logprobs, old_logprobs: ``[B, T]``. counted: bool ``[B, T]``, the tokens that ``|o_i|`` counts.
      sequence_index: int ``[B, T]``; None: each row is one sequence.
    """
    return jnp.exp(sequence_mean(log_ratio(logprobs, old_logprobs), counted, sequence_index))


def sequence_token_ratio(logprobs: Array, old_logprobs: Array, counted: Array, sequence_index: Array | None = None) -> Array:
    """``sg[s_i] pi_t / sg[pi_t]``: the value of ``sequence_ratio``, each token's gradient its own (GSPO-token, arXiv
    2507.18071). Where advantages differ within a sequence; else GSPO with another route to the same gradient."""
    value = jax.lax.stop_gradient(sequence_ratio(logprobs, old_logprobs, counted, sequence_index))
    return value * jnp.exp(logprobs - jax.lax.stop_gradient(logprobs))


def geometric_ratio(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    low: float,
    high: float,
    counted: Array,
    sequence_index: Array | None = None,
) -> tuple[Array, Array]:
    """The geometric mean of token ratios, each cut in log space where that holds it back (GMPO, arXiv 2507.20673).

    Tamer than the arithmetic mean against single tokens of extreme ratio. With advantage A above 0 a token's log-ratio is
    cut from above at ``high``, below 0 from below at ``-low``. Meant for surrogate ``none``: it has clipped already.

    Returns:
      ``(ratio, clipped)``, ``[B, T]``: the ratio of the token's sequence; where the token's own log-ratio was cut.
    """
    free = log_ratio(logprobs, old_logprobs)
    bounded = jnp.where(advantages >= 0, jnp.minimum(free, high), jnp.maximum(free, -low))
    return jnp.exp(sequence_mean(bounded, counted, sequence_index)), bounded != free
