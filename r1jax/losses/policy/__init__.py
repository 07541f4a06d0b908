"""GRPO's family of policy losses: its parts, and the loss that composes them."""

from r1jax.losses.policy.correction import off_policy_mask, sampler_correction
from r1jax.losses.policy.kl import k1, k2, k3, k3_unbiased
from r1jax.losses.policy.loss import PolicyLoss, PolicyTokens, grpo_loss
from r1jax.losses.policy.ratio import geometric_ratio, sequence_ratio, sequence_token_ratio, token_ratio
from r1jax.losses.policy.surrogate import (
    cispo_surrogate,
    clipped_surrogate,
    dual_clipped_surrogate,
    sapo_surrogate,
    unclipped_surrogate,
)

__all__ = [
    "PolicyLoss",
    "PolicyTokens",
    "cispo_surrogate",
    "clipped_surrogate",
    "dual_clipped_surrogate",
    "geometric_ratio",
    "grpo_loss",
    "k1",
    "k2",
    "k3",
    "k3_unbiased",
    "off_policy_mask",
    "sampler_correction",
    "sapo_surrogate",
    "sequence_ratio",
    "sequence_token_ratio",
    "token_ratio",
    "unclipped_surrogate",
]
