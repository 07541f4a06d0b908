"""Losses: pure functions on arrays. Needs jax and numpy, and nothing else of r1jax.

Advantages and token weights are computed on the host in numpy, over a whole rollout and a whole update; losses are
traced by jax and divide by nothing: an update's loss is ``sum(token_weight * token_loss)`` over its micro-steps.
``README.md`` beside this file maps the published algorithms to what is here.
"""

from r1jax.losses.advantages import gdpo_advantages, group_advantages, token_returns, whiten
from r1jax.losses.distillation import (
    forward_kl,
    generalised_js,
    logit_distillation_loss,
    on_policy_distillation_advantages,
    reverse_kl,
)
from r1jax.losses.metrics import merge_metrics, weighted_mean
from r1jax.losses.policy import (
    PolicyLoss,
    PolicyTokens,
    cispo_surrogate,
    clipped_surrogate,
    dual_clipped_surrogate,
    geometric_ratio,
    grpo_loss,
    k1,
    k2,
    k3,
    k3_unbiased,
    off_policy_mask,
    sampler_correction,
    sapo_surrogate,
    sequence_ratio,
    sequence_token_ratio,
    token_ratio,
    unclipped_surrogate,
)
from r1jax.losses.preference import dpo_loss, pairwise_reward_loss, pointwise_reward_loss
from r1jax.losses.router import expert_load, router_bias_update, sequence_balance_loss
from r1jax.losses.sequences import sequence_mean, sequence_sum
from r1jax.losses.sft import mtp_loss, sft_loss
from r1jax.losses.weights import token_weights

__all__ = [
    "PolicyLoss",
    "PolicyTokens",
    "cispo_surrogate",
    "clipped_surrogate",
    "dpo_loss",
    "dual_clipped_surrogate",
    "expert_load",
    "forward_kl",
    "gdpo_advantages",
    "generalised_js",
    "geometric_ratio",
    "group_advantages",
    "grpo_loss",
    "k1",
    "k2",
    "k3",
    "k3_unbiased",
    "logit_distillation_loss",
    "merge_metrics",
    "mtp_loss",
    "off_policy_mask",
    "on_policy_distillation_advantages",
    "pairwise_reward_loss",
    "pointwise_reward_loss",
    "reverse_kl",
    "router_bias_update",
    "sampler_correction",
    "sapo_surrogate",
    "sequence_balance_loss",
    "sequence_mean",
    "sequence_ratio",
    "sequence_sum",
    "sequence_token_ratio",
    "sft_loss",
    "token_ratio",
    "token_returns",
    "token_weights",
    "unclipped_surrogate",
    "weighted_mean",
    "whiten",
]
