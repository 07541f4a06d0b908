"""Policy losses: GRPO, composed of a ratio, a surrogate and a KL penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from r1jax.losses.kl import ESTIMATORS, LOG_RATIO_BOUND, k3, log_ratio
from r1jax.losses.metrics import weighted_mean

Array = jax.Array


@dataclass(frozen=True)
class PolicyLoss:
    """What a policy loss is composed of.

    Attributes:
      clip_low, clip_high: the ratio is clipped to ``[1 - clip_low, 1 + clip_high]``; ``clip_high`` below 0 means
        ``clip_low``. The paper's eps of 10 is ``clip_low = clip_high = 10``: only ratios above 11 are ever clipped.
      kl: ``none``, ``k1``, ``k2`` or ``k3``: the estimator of KL(policy || reference) that is added to the loss.
      kl_coefficient: its factor, beta. 0 needs no reference.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: str = "k3"
    kl_coefficient: float = 1e-3

    def __post_init__(self):
        if not self.clip_low >= 0:
            raise ValueError(f"clip_low must not be negative, but is {self.clip_low}")
        if math.isnan(self.clip_high):
            raise ValueError("clip_high must be a number, not nan")
        if self.kl != "none" and self.kl not in ESTIMATORS:
            raise ValueError(f"kl {self.kl!r} is unknown; known: none, {', '.join(ESTIMATORS)}")
        if not 0 <= self.kl_coefficient < math.inf:
            raise ValueError(f"kl_coefficient must be finite and not negative, but is {self.kl_coefficient}")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the reference's log-probabilities."""
        return self.kl != "none" and self.kl_coefficient > 0


def token_ratio(logprobs: Array, old_logprobs: Array) -> Array:
    """``pi(o_t) / pi_old(o_t)`` for each token (arXiv 2402.03300 eq. 3)."""
    return jnp.exp(log_ratio(logprobs, old_logprobs))


def clipped_surrogate(ratio: Array, advantages: Array, low: float, high: float) -> tuple[Array, Array]:
    """PPO's objective, ``min(r A, clip(r, 1 - low, 1 + high) A)`` (arXiv 1707.06347 eq. 7), to be maximised.

    Returns:
      ``(objective, clipped)``: where ``clipped``, the bound holds the objective and the token has no gradient. A ratio on
      the bound is not clipped.
    """
    free = ratio * advantages
    bounded = jnp.clip(ratio, 1 - low, 1 + high) * advantages
    clipped = bounded < free
    return jnp.where(clipped, bounded, free), clipped


def grpo_loss(
    logprobs: Array,
    old_logprobs: Array | None,
    advantages: Array,
    token_weight: Array,
    *,
    ref_logprobs: Array | None = None,
    sampler_logprobs: Array | None = None,
    sequence_index: Array | None = None,
    entropy: Array | None = None,
    config: PolicyLoss = PolicyLoss(),
) -> tuple[Array, dict[str, Array]]:
    """The GRPO loss (arXiv 2402.03300 eq. 3-4; 2501.12948 eq. 1-3), to be minimised:

    ``sum_t token_weight_t * ( -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) + beta KL_t )``

    with ``r_t = exp(logprobs_t - old_logprobs_t)``. The gradient flows through ``logprobs`` alone. Log-ratios are cut to
    plus and minus ``LOG_RATIO_BOUND``. Tokens of weight 0 add exactly 0 to the loss and to its gradient, whatever they
    hold. Summed over the micro-steps of an update, loss and gradient are those of the whole update.

    Args:
      logprobs: ``[B, T]``, of the policy that is trained, at the temperature that was sampled with.
      old_logprobs: ``[B, T]``, of the policy that sampled. None: the policy has not moved since; the ratio is 1, with
        the gradient of the ratio.
      advantages: ``[B, T]``, the sequence's advantage on each of its tokens.
      token_weight: ``[B, T]``, from ``token_weights`` over the whole update.
      ref_logprobs: ``[B, T]``, of the reference policy; needed where ``config.needs_reference``.
      sampler_logprobs: ``[B, T]``, as the sampler computed them; compared with ``old_logprobs``.
      sequence_index: int ``[B, T]``; per-sequence ratios read it, the token ratio does not.
      entropy: ``[B, T]``, of the distributions that the tokens were drawn from; reported.
      config: the composition.

    Returns:
      ``(loss, metrics)``. Metrics, averaged under ``token_weight`` (``merge_metrics`` joins those of micro-steps):
      ``ratio_mean``, ``ratio_max``, ``clip_low`` and ``clip_high`` (shares of tokens whose gradient clipping removes, by
      side), ``kl_old`` (k3), ``clamped`` (tokens with a cut log-ratio, old or reference), ``tokens``, ``weight``,
      ``loss``; and where their inputs are given ``kl_ref`` (k3), ``entropy``, ``sampler_trainer_mean`` and ``_max``
      (difference of log-probabilities).

    Raises:
      ValueError: arrays of different shapes, a KL penalty without reference.
    """
    given = {
        "old_logprobs": old_logprobs,
        "advantages": advantages,
        "token_weight": token_weight,
        "ref_logprobs": ref_logprobs,
        "sampler_logprobs": sampler_logprobs,
        "sequence_index": sequence_index,
        "entropy": entropy,
    }
    for name, array in given.items():
        if array is not None and jnp.shape(array) != jnp.shape(logprobs):
            raise ValueError(f"{name} has shape {jnp.shape(array)}, logprobs {jnp.shape(logprobs)}; all are [B, T]")
    if config.needs_reference and ref_logprobs is None:
        raise ValueError(f"kl {config.kl!r} with coefficient {config.kl_coefficient} needs ref_logprobs")

    weight = jnp.asarray(token_weight, jnp.promote_types(jnp.result_type(logprobs), jnp.float32))
    counted = weight != 0

    def read(array: Array) -> Array:
        """0 where nothing is counted, so that no NaN of padding reaches a product, forwards or backwards."""
        return jnp.where(counted, jnp.asarray(array, weight.dtype), 0)

    new = read(logprobs)
    old = jax.lax.stop_gradient(new if old_logprobs is None else read(old_logprobs))
    advantage = jax.lax.stop_gradient(read(advantages))
    high = config.clip_low if config.clip_high < 0 else config.clip_high
    ratio = token_ratio(new, old)
    objective, clipped = clipped_surrogate(ratio, advantage, config.clip_low, high)
    token_loss = -objective
    cut = jnp.abs(new - old) > LOG_RATIO_BOUND

    metrics = {
        "ratio_mean": weighted_mean(ratio, weight),
        "ratio_max": jnp.max(jnp.where(counted, ratio, 0), initial=0),
        "clip_low": weighted_mean(clipped & (ratio < 1), weight),
        "clip_high": weighted_mean(clipped & (ratio > 1), weight),
        "kl_old": weighted_mean(k3(old, new), weight),
    }
    if ref_logprobs is not None:
        reference = jax.lax.stop_gradient(read(ref_logprobs))
        cut |= jnp.abs(new - reference) > LOG_RATIO_BOUND
        metrics["kl_ref"] = weighted_mean(k3(new, reference), weight)
        if config.needs_reference:
            token_loss += config.kl_coefficient * ESTIMATORS[config.kl](new, reference)
    if sampler_logprobs is not None:
        difference = jnp.abs(old - read(sampler_logprobs))
        metrics["sampler_trainer_mean"] = weighted_mean(difference, weight)
        metrics["sampler_trainer_max"] = jnp.max(difference, initial=0)
    if entropy is not None:
        metrics["entropy"] = weighted_mean(read(entropy), weight)
    loss = jnp.sum(weight * token_loss)
    metrics |= {"clamped": jnp.sum(cut), "tokens": jnp.sum(counted), "weight": jnp.sum(weight), "loss": loss}
    return loss, jax.tree.map(lambda x: jax.lax.stop_gradient(x.astype(weight.dtype)), metrics)
