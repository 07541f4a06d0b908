"""Estimators of the KL divergence from one sampled token: functions of its two log-probabilities.

Each estimates ``KL(p || q)`` in nats for a token drawn from p, with ``d = log q - log p`` (Schulman, "Approximating KL
divergence", 2020). Differences beyond ``LOG_RATIO_BOUND`` are cut, with no gradient there, so that nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from r1jax.losses.policy.ratio import log_ratio

Array = jax.Array


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


def k3_unbiased(logprobs: Array, ref_logprobs: Array, old_logprobs: Array) -> Array:
    """``r * k3`` with ``r = pi / pi_old``, its gradient included (DeepSeek-V3.2, arXiv 2512.02556 section 3.1).

    The tokens were drawn from the old policy: weighted by the ratio, value and gradient are those of the KL divergence of
    the policy itself, also after it has moved.
    """
    return jnp.exp(log_ratio(logprobs, old_logprobs)) * k3(logprobs, ref_logprobs)


# name -> (logprobs, ref_logprobs, old_logprobs) -> [B, T]
ESTIMATORS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "k1": lambda new, ref, old: k1(new, ref),
    "k2": lambda new, ref, old: k2(new, ref),
    "k3": lambda new, ref, old: k3(new, ref),
    "k3_unbiased": k3_unbiased,
}
