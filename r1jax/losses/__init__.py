"""Losses: pure functions on arrays. Needs jax and numpy, and nothing else of r1jax.

Advantages and token weights are computed on the host in numpy, over a whole rollout and a whole update; losses are
traced by jax and divide by nothing: an update's loss is ``sum(token_weight * token_loss)`` over its micro-steps.
"""

from r1jax.losses.advantages import group_advantages
from r1jax.losses.kl import k1, k2, k3
from r1jax.losses.metrics import merge_metrics, weighted_mean
from r1jax.losses.policy import PolicyLoss, clipped_surrogate, grpo_loss, token_ratio
from r1jax.losses.sft import sft_loss
from r1jax.losses.weights import token_weights

__all__ = [
    "PolicyLoss",
    "clipped_surrogate",
    "group_advantages",
    "grpo_loss",
    "k1",
    "k2",
    "k3",
    "merge_metrics",
    "sft_loss",
    "token_ratio",
    "token_weights",
    "weighted_mean",
]
