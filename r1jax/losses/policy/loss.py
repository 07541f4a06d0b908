"""The policy loss of GRPO and its family: ratio, then surrogate, then correction, then KL penalty and entropy bonus.

Each of the four is one function, chosen by name or given. A variant is a new function: see ``PolicyLoss``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.losses.metrics import finished, same_shapes, weighted_mean
from r1jax.losses.policy import correction, kl, ratio, surrogate

Array = jax.Array


class PolicyTokens(NamedTuple):
    """What a ratio, surrogate, correction or KL estimator may read, each ``[B, T]``; 0 on tokens that are not counted.

    Attributes:
      logprobs: of the policy that is trained; the only one with a gradient.
      old_logprobs: of the policy that sampled, as the trainer computes them.
      advantages: the sequence's advantage on each of its tokens.
      counted: bool; the tokens whose weight is not 0.
      sequence_index: int, or None: each row is one sequence. ``losses.sequences`` has sums and means over it.
      sampler_logprobs, ref_logprobs: as they were given, or None.
    """

    logprobs: Array
    old_logprobs: Array
    advantages: Array
    counted: Array
    sequence_index: Array | None = None
    sampler_logprobs: Array | None = None
    ref_logprobs: Array | None = None


# (tokens, config) -> (ratio [B, T], clipped: bool [B, T], where the ratio itself holds a token back)
Ratio = Callable[[PolicyTokens, "PolicyLoss"], tuple[Array, Array]]
# (ratio [B, T], tokens, config) -> (objective [B, T], to be maximised; clipped: bool [B, T])
Surrogate = Callable[[Array, PolicyTokens, "PolicyLoss"], tuple[Array, Array]]
# (tokens, config) -> [B, T], the multiplier of the surrogate, without gradient
Correction = Callable[[PolicyTokens, "PolicyLoss"], Array]
# (logprobs, ref_logprobs, old_logprobs) -> [B, T]
KL = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class PolicyLoss:
    """What a policy loss is composed of. ``losses/README.md`` lists the published algorithms; the default is GRPO's.

    A part of one's own is a function in a name's place, with the signature given at ``Ratio``, ``Surrogate``, ``Correction``
    or ``KL`` above; numbers of its own come by ``functools.partial``::

        def gentle(ratio, tokens, config):
            bounded = 1 + jnp.tanh(ratio - 1)
            return bounded * tokens.advantages, jnp.zeros(ratio.shape, bool)

        grpo_loss(..., config=PolicyLoss(surrogate=gentle))

    Attributes:
      ratio: ``token``, ``sequence`` (GSPO), ``sequence_token`` (GSPO-token), ``geometric`` (GMPO, which clips by itself).
      surrogate: ``clip``, ``dual_clip``, ``cispo``, ``sapo``, ``none``.
      clip_low, clip_high: the ratio is clipped to ``[1 - clip_low, 1 + clip_high]``; ``clip_high`` below 0 means
        ``clip_low``. The paper's eps of 10 is ``clip_low = clip_high = 10``: only ratios above 11 are ever clipped. The
        geometric ratio clips log-ratios to ``[-clip_low, clip_high]``.
      dual_clip: the largest ratio that ``dual_clip`` counts where A < 0.
      tau_positive, tau_negative: of ``sapo``.
      correction: ``none``, ``truncate`` (TIS), ``mask`` (IcePop), ``reject``: for samples drawn by a sampler that differs.
      correction_level: what it judges: ``token``, ``sequence`` (the product), ``geometric`` (the mean).
      correction_low, correction_high: its bounds; ``truncate`` reads the upper one only.
      off_policy_delta: sequences with A < 0 whose mean ``log(pi_old / pi)`` is above it have no policy term (DeepSeek-V3.2);
        0: none.
      kl: ``none``, ``k1``, ``k2``, ``k3``, ``k3_unbiased``: the estimator of KL(policy || reference), added to the loss.
      kl_coefficient: its factor, beta. 0 needs no reference.
      entropy_coefficient: factor of the entropy, which is taken off the loss: a bonus on staying undecided.
    """

    ratio: str | Ratio = "token"
    surrogate: str | Surrogate = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0
    tau_positive: float = 1.0
    tau_negative: float = 1.05
    correction: str | Correction = "none"
    correction_level: str = "token"
    correction_low: float = 0.5
    correction_high: float = 2.0
    off_policy_delta: float = 0.0
    kl: str | KL = "k3"
    kl_coefficient: float = 1e-3
    entropy_coefficient: float = 0.0

    def __post_init__(self):
        for part, known in PARTS.items():
            value = getattr(self, part)
            if not callable(value) and value not in known:
                raise ValueError(f"{part} {value!r} is unknown; known: {', '.join(known)}, or a function")
        if self.correction_level not in correction.LEVELS:
            known = ", ".join(correction.LEVELS)
            raise ValueError(f"correction_level {self.correction_level!r} is unknown; known: {known}")
        if not self.clip_low >= 0:
            raise ValueError(f"clip_low must not be negative, but is {self.clip_low}")
        if math.isnan(self.clip_high):
            raise ValueError("clip_high must be a number, not nan")
        if not self.dual_clip > 1:
            raise ValueError(f"dual_clip must be above 1, the ratio of an unchanged token, but is {self.dual_clip}")
        for name in ("tau_positive", "tau_negative"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and positive, but is {getattr(self, name)}")
        if not 0 <= self.correction_low <= self.correction_high:
            raise ValueError(
                f"correction_low {self.correction_low} must lie between 0 and correction_high {self.correction_high}"
            )
        for name in ("kl_coefficient", "off_policy_delta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, but is {getattr(self, name)}")
        if not math.isfinite(self.entropy_coefficient):
            raise ValueError(f"entropy_coefficient must be finite, but is {self.entropy_coefficient}")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the reference's log-probabilities."""
        return self.kl != "none" and self.kl_coefficient > 0

    @property
    def needs_sampler(self) -> bool:
        """Whether the loss reads the sampler's log-probabilities for more than a metric."""
        return self.correction != "none"

    @property
    def bounds(self) -> tuple[float, float]:
        """``(clip_low, clip_high)``, the latter resolved."""
        return self.clip_low, self.clip_low if self.clip_high < 0 else self.clip_high


# ---------------------------------------------------------------------------------------------- the parts by name
def _unclipped(value: Array) -> tuple[Array, Array]:
    return value, jnp.zeros(value.shape, bool)


def _of_tokens(tokens: PolicyTokens, config: PolicyLoss) -> tuple[Array, Array]:
    return _unclipped(ratio.token_ratio(tokens.logprobs, tokens.old_logprobs))


def _of_sequences(tokens: PolicyTokens, config: PolicyLoss) -> tuple[Array, Array]:
    return _unclipped(ratio.sequence_ratio(tokens.logprobs, tokens.old_logprobs, tokens.counted, tokens.sequence_index))


def _of_sequences_by_token(tokens: PolicyTokens, config: PolicyLoss) -> tuple[Array, Array]:
    return _unclipped(
        ratio.sequence_token_ratio(tokens.logprobs, tokens.old_logprobs, tokens.counted, tokens.sequence_index)
    )


def _geometric(tokens: PolicyTokens, config: PolicyLoss) -> tuple[Array, Array]:
    return ratio.geometric_ratio(
        tokens.logprobs,
        tokens.old_logprobs,
        tokens.advantages,
        *config.bounds,
        tokens.counted,
        tokens.sequence_index,
    )


RATIOS: dict[str, Ratio] = {
    "token": _of_tokens,
    "sequence": _of_sequences,
    "sequence_token": _of_sequences_by_token,
    "geometric": _geometric,
}

SURROGATES: dict[str, Surrogate] = {
    "clip": lambda r, tokens, config: surrogate.clipped_surrogate(r, tokens.advantages, *config.bounds),
    "dual_clip": lambda r, tokens, config: surrogate.dual_clipped_surrogate(
        r, tokens.advantages, *config.bounds, config.dual_clip
    ),
    "cispo": lambda r, tokens, config: surrogate.cispo_surrogate(r, tokens.advantages, tokens.logprobs, *config.bounds),
    "sapo": lambda r, tokens, config: surrogate.sapo_surrogate(
        r, tokens.advantages, config.tau_positive, config.tau_negative
    ),
    "none": lambda r, tokens, config: surrogate.unclipped_surrogate(r, tokens.advantages),
}


def _correction(rule: str) -> Correction:
    return lambda tokens, config: correction.sampler_correction(
        tokens.old_logprobs,
        tokens.sampler_logprobs,
        tokens.counted,
        tokens.sequence_index,
        rule=rule,
        level=config.correction_level,
        low=config.correction_low,
        high=config.correction_high,
    )


CORRECTIONS: dict[str, Correction] = {rule: _correction(rule) for rule in correction.RULES}

PARTS = {
    "ratio": RATIOS,
    "surrogate": SURROGATES,
    "correction": {"none": None} | CORRECTIONS,
    "kl": {"none": None} | kl.ESTIMATORS,
}


def _part(config: PolicyLoss, name: str) -> Callable:
    value = getattr(config, name)
    return value if callable(value) else PARTS[name][value]


# ---------------------------------------------------------------------------------------------- the loss
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
    """The loss of GRPO and its family, to be minimised. With the default composition (arXiv 2402.03300 eq. 3-4; 2501.12948
    eq. 1-3):

    ``sum_t token_weight_t * ( -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) + beta KL_t )``

    with ``r_t = exp(logprobs_t - old_logprobs_t)``; in general

    ``sum_t token_weight_t * ( -correction_t surrogate(r_t, A_t) + beta KL_t - entropy_coefficient H_t )``.

    The gradient flows through ``logprobs`` and, with an entropy bonus, through ``entropy``. Log-ratios are cut to plus and
    minus ``LOG_RATIO_BOUND``, log-probabilities count as ``LOGPROB_FLOOR`` at least. Tokens of weight 0 add exactly 0 to the loss and to its gradient, whatever they hold. Summed
    over the micro-steps of an update, loss and gradient are those of the whole update.

    Args:
      logprobs: ``[B, T]``, of the policy that is trained, at the temperature that was sampled with.
      old_logprobs: ``[B, T]``, of the policy that sampled. None: the policy has not moved since; the ratio is 1, with
        the gradient of the ratio.
      advantages: ``[B, T]``, the sequence's advantage on each of its tokens.
      token_weight: ``[B, T]``, from ``token_weights`` over the whole update.
      ref_logprobs: ``[B, T]``, of the reference policy; needed where ``config.needs_reference``.
      sampler_logprobs: ``[B, T]``, as the sampler computed them; compared with ``old_logprobs``; needed by a correction.
      sequence_index: int ``[B, T]``, which sequence a token belongs to; a sequence lies in one row. None: each row is one
        sequence. Only what is per sequence reads it; a sequence's tokens are then those of weight not 0.
      entropy: ``[B, T]``, of the distributions that the tokens were drawn from; reported; needed by an entropy bonus.
      config: the composition.

    Returns:
      ``(loss, metrics)``. Metrics, averaged under ``token_weight`` (``merge_metrics`` joins those of micro-steps):
      ``ratio_mean``, ``ratio_max``, ``clip_low`` and ``clip_high`` (shares of tokens that a bound holds, by side),
      ``kl_old`` (k3), ``masked`` (share of tokens whose policy term the correction or the off-policy mask took out),
      ``clamped`` (tokens with a cut log-ratio), ``tokens``, ``weight``, ``loss``; and where their inputs are given
      ``kl_ref`` (k3), ``entropy``, ``sampler_trainer_mean`` and ``_max`` (difference of log-probabilities),
      ``correction_mean``.

    Raises:
      ValueError: arrays of different shapes; a KL penalty, a correction or an entropy bonus without its input.
    """
    same_shapes(
        "logprobs",
        logprobs,
        old_logprobs=old_logprobs,
        advantages=advantages,
        token_weight=token_weight,
        ref_logprobs=ref_logprobs,
        sampler_logprobs=sampler_logprobs,
        sequence_index=sequence_index,
        entropy=entropy,
    )
    if config.needs_reference and ref_logprobs is None:
        raise ValueError(f"kl {config.kl!r} with coefficient {config.kl_coefficient} needs ref_logprobs")
    if config.needs_sampler and sampler_logprobs is None:
        raise ValueError(f"correction {config.correction!r} needs sampler_logprobs")
    if config.entropy_coefficient and entropy is None:
        raise ValueError(f"entropy_coefficient {config.entropy_coefficient} needs entropy")

    weight = jnp.asarray(token_weight, jnp.promote_types(jnp.result_type(logprobs), jnp.float32))
    tokens = _read_tokens(weight, logprobs, old_logprobs, advantages, sequence_index, sampler_logprobs, ref_logprobs)
    value, held = _part(config, "ratio")(tokens, config)
    objective, clipped = _part(config, "surrogate")(value, tokens, config)

    multiplier = corrected = None
    if config.needs_sampler:
        multiplier = corrected = _part(config, "correction")(tokens, config)
    if config.off_policy_delta:
        kept = correction.off_policy_mask(
            tokens.logprobs,
            tokens.old_logprobs,
            tokens.advantages,
            tokens.counted,
            tokens.sequence_index,
            delta=config.off_policy_delta,
        )
        multiplier = kept if multiplier is None else multiplier * kept
    token_loss = -objective if multiplier is None else -multiplier * objective

    if config.needs_reference:
        token_loss += config.kl_coefficient * _part(config, "kl")(tokens.logprobs, tokens.ref_logprobs, tokens.old_logprobs)
    if entropy is not None:
        entropy = jnp.where(tokens.counted, jnp.asarray(entropy, weight.dtype), 0)
        if config.entropy_coefficient:
            token_loss -= config.entropy_coefficient * entropy
    # Where nothing is counted a part of one's own may have made anything of the zeros that it was given.
    token_loss = jnp.where(tokens.counted, token_loss, 0)

    low = (held & (tokens.logprobs < tokens.old_logprobs)) | (clipped & (value < 1))
    high = (held & (tokens.logprobs > tokens.old_logprobs)) | (clipped & (value > 1))
    metrics = {
        "ratio_mean": weighted_mean(value, weight),
        "ratio_max": jnp.max(jnp.where(tokens.counted, value, 0), initial=0),
        "clip_low": weighted_mean(low, weight),
        "clip_high": weighted_mean(high, weight),
        "masked": jnp.zeros((), weight.dtype) if multiplier is None else weighted_mean(multiplier == 0, weight),
        "clamped": _clamped(tokens, config),
    }
    metrics |= _distances(tokens, weight)
    if corrected is not None:
        metrics["correction_mean"] = weighted_mean(corrected, weight)
    if entropy is not None:
        metrics["entropy"] = weighted_mean(entropy, weight)
    return finished(weight, token_loss, metrics)


def _read_tokens(weight, logprobs, old_logprobs, advantages, sequence_index, sampler_logprobs, ref_logprobs):
    """The arrays with 0 where nothing is counted, so that no NaN of padding reaches a product, forwards or backwards."""
    counted = weight != 0

    def read(array: Array | None) -> Array | None:
        return None if array is None else jnp.where(counted, jnp.asarray(array, weight.dtype), 0)

    def read_logprobs(array: Array | None) -> Array | None:
        return None if array is None else ratio.floored(read(array))

    new = read_logprobs(logprobs)
    constants = (
        new if old_logprobs is None else read_logprobs(old_logprobs),
        read(advantages),
        read_logprobs(sampler_logprobs),
        read_logprobs(ref_logprobs),
    )
    old, advantage, sampler, reference = jax.lax.stop_gradient(constants)
    index = None if sequence_index is None else jnp.asarray(sequence_index)
    return PolicyTokens(new, old, advantage, counted, index, sampler, reference)


def _distances(tokens: PolicyTokens, weight: Array) -> dict[str, Array]:
    """How far the policy is from the one that sampled, from the reference, and the trainer from the sampler."""
    found = {"kl_old": weighted_mean(kl.k3(tokens.old_logprobs, tokens.logprobs), weight)}
    if tokens.ref_logprobs is not None:
        found["kl_ref"] = weighted_mean(kl.k3(tokens.logprobs, tokens.ref_logprobs), weight)
    if tokens.sampler_logprobs is not None:
        difference = jnp.abs(tokens.old_logprobs - tokens.sampler_logprobs)
        found["sampler_trainer_mean"] = weighted_mean(difference, weight)
        found["sampler_trainer_max"] = jnp.max(difference, initial=0)
    return found


def _clamped(tokens: PolicyTokens, config: PolicyLoss) -> Array:
    """How many tokens have a log-ratio beyond the bound, of those that the loss or its metrics read."""
    pairs = [
        (tokens.logprobs, tokens.old_logprobs),
        (tokens.logprobs, tokens.ref_logprobs),
        (tokens.old_logprobs, tokens.sampler_logprobs if config.needs_sampler else None),
    ]
    cut = [jnp.abs(a - b) > ratio.LOG_RATIO_BOUND for a, b in pairs if b is not None]
    return jnp.sum(jnp.any(jnp.stack(cut), axis=0))
