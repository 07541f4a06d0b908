"""Surrogate objectives of one token, to be maximised: what becomes of ratio and advantage.

Each returns ``(objective, clipped)``. ``clipped`` says where a bound acts: there the token has no gradient, save in CISPO,
where its weight is held and the gradient stays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def clipped_surrogate(ratio: Array, advantages: Array, low: float, high: float) -> tuple[Array, Array]:
    """PPO's objective, ``min(r A, clip(r, 1 - low, 1 + high) A)`` (arXiv 1707.06347 eq. 7): the default.

    ``high`` above ``low`` is DAPO's clip-higher (arXiv 2503.14476): room for unlikely tokens to grow. A ratio on the bound is
    not clipped.
    """
    free = ratio * advantages
    bounded = jnp.clip(ratio, 1 - low, 1 + high) * advantages
    clipped = bounded < free
    return jnp.where(clipped, bounded, free), clipped


def dual_clipped_surrogate(ratio: Array, advantages: Array, low: float, high: float, cap: float) -> tuple[Array, Array]:
    """``clipped_surrogate``, and where A < 0 the ratio counts as at most ``cap`` (dual clip, arXiv 1912.09729, cap 3;
    INTELLECT-2, arXiv 2505.07291, cap 4).

    PPO leaves that side open: a token that the policy has made much likelier and that turned out bad has a gradient without
    bound. For data that is several updates old.
    """
    objective, clipped = clipped_surrogate(ratio, advantages, low, high)
    capped = (advantages < 0) & (ratio > cap)
    return jnp.where(capped, cap * advantages, objective), clipped | capped


def cispo_surrogate(ratio: Array, advantages: Array, logprobs: Array, low: float, high: float) -> tuple[Array, Array]:
    """``sg[clip(r, 1 - low, 1 + high)] A log pi`` (CISPO, MiniMax-M1, arXiv 2506.13585).

    Every token keeps a gradient, of bounded weight: rare turning points ("wait") are not clipped away. In practice ``low`` is
    1 or more, so that only the upper bound acts; ScaleRL's cap of 5 (arXiv 2510.13786) is ``high`` 4.
    """
    weight = jnp.clip(ratio, 1 - low, 1 + high)
    return jax.lax.stop_gradient(weight) * advantages * logprobs, weight != ratio


def sapo_surrogate(ratio: Array, advantages: Array, tau_positive: float, tau_negative: float) -> tuple[Array, Array]:
    """``sigmoid(tau (r - 1)) (4 / tau) A`` (SAPO, arXiv 2511.20347): a soft gate in the clip's place.

    The gradient at r = 1 is that of ``r A`` and fades smoothly on both sides, faster for A < 0 if ``tau_negative`` is larger.
    Nothing is clipped.
    """
    tau = jnp.where(advantages > 0, tau_positive, tau_negative)
    return jax.nn.sigmoid(tau * (ratio - 1)) * (4 / tau) * advantages, jnp.zeros(ratio.shape, bool)


def unclipped_surrogate(ratio: Array, advantages: Array) -> tuple[Array, Array]:
    """``r A``: plain importance weighting; REINFORCE where the policy has not moved. For one update per rollout."""
    return ratio * advantages, jnp.zeros(ratio.shape, bool)
