"""Estimators of the KL divergence from one sampled token: functions of its two log-probabilities.

Each estimates ``KL(p || q)`` in nats for a token drawn from p, with ``d = log q - log p`` (Schulman, "Approximating KL
divergence", 2020). Differences beyond ``LOG_RATIO_BOUND`` are cut, with no gradient there, so that nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array

# exp(20) is 4.9e8. A token whose probability changed by more says that something is broken, not by how much.
LOG_RATIO_BOUND = 20.0


def log_ratio(logprobs: Array, other: Array) -> Array:
    """``logprobs - other``, cut to plus and minus ``LOG_RATIO_BOUND``."""
    return jnp.clip(logprobs - other, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def k1(logprobs: Array, ref_logprobs: Array) -> Array:
    """``-d``. Unbiased, of high variance, and its gradient is 0 on average: for logging and reward penalties."""
    return log_ratio(logprobs, ref_logprobs)


def k2(logprobs: Array, ref_logprobs: Array) -> Array:
    """``d**2 / 2``. Biased in value; its gradient is that of the KL divergence for on-policy samples."""
    return 0.5 * jnp.square(log_ratio(ref_logprobs, logprobs))


def k3(logprobs: Array, ref_logprobs: Array) -> Array:
    """``exp(d) - d - 1``. Unbiased, never negative, of low variance: the one in GRPO (arXiv 2402.03300 eq. 4)."""
    d = log_ratio(ref_logprobs, logprobs)
    return jnp.expm1(d) - d


ESTIMATORS: dict[str, Callable[[Array, Array], Array]] = {"k1": k1, "k2": k2, "k3": k3}
