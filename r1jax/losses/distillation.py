"""Distillation from a teacher's distributions, in nats per token. (Distillation from its samples is ``sft_loss``.)"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from r1jax.losses.metrics import finished, masked_to_zero, same_shapes, weighted_mean
from r1jax.losses.policy.ratio import floored, log_ratio

Array = jax.Array

# What a probability of exactly 0 counts as where the other distribution has some: the KL divergence would be infinite.
# float32 has no number between exp(-100) and 0 to speak of.
LOG_ZERO = -100.0


def _kl(log_p: Array, log_q: Array) -> Array:
    """``KL(p || q)`` over the last axis. Where p is 0 the term is 0, also if q is 0 there; where q alone is 0 it counts as
    ``exp(LOG_ZERO)``. Gradients stay finite."""
    possible = log_p > -jnp.inf
    # Both 0 where p is 0: so is the term, and its gradient.
    log_p = jnp.where(possible, log_p, 0)
    log_q = jnp.where(possible, jnp.where(log_q > -jnp.inf, log_q, LOG_ZERO), 0)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def forward_kl(student_logprobs: Array, teacher_logprobs: Array) -> Array:
    """``KL(teacher || student)`` over the last axis, from log-probabilities ``[..., V]``. Covers all that the teacher does."""
    return _kl(teacher_logprobs, student_logprobs)


def reverse_kl(student_logprobs: Array, teacher_logprobs: Array) -> Array:
    """``KL(student || teacher)``. Settles on what the teacher does best (MiniLLM, arXiv 2306.08543)."""
    return _kl(student_logprobs, teacher_logprobs)


def generalised_js(student_logprobs: Array, teacher_logprobs: Array, beta: float = 0.5) -> Array:
    """``beta KL(teacher || m) + (1 - beta) KL(student || m)``, ``m = beta teacher + (1 - beta) student`` (GKD, arXiv
    2306.13649 eq. 1). Bounded; between the two KLs, each of which is its slope at one end of beta.

    Raises:
      ValueError: a beta that is not inside (0, 1).
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta must lie inside (0, 1), but is {beta}; use forward_kl or reverse_kl at the ends")
    possible = (teacher_logprobs > -jnp.inf) | (student_logprobs > -jnp.inf)
    teacher_logprobs, student_logprobs = (jnp.where(possible, x, 0) for x in (teacher_logprobs, student_logprobs))
    mixture = jnp.logaddexp(teacher_logprobs + math.log(beta), student_logprobs + math.log1p(-beta))
    # Only now are both impossible again: the derivative of logaddexp at twice -inf is NaN.
    teacher_logprobs, student_logprobs = (jnp.where(possible, x, -jnp.inf) for x in (teacher_logprobs, student_logprobs))
    return beta * _kl(teacher_logprobs, mixture) + (1 - beta) * _kl(student_logprobs, mixture)


# (student_logprobs [..., V], teacher_logprobs [..., V]) -> [...]
Divergence = Callable[[Array, Array], Array]
DIVERGENCES: dict[str, Divergence] = {"forward": forward_kl, "reverse": reverse_kl, "js": generalised_js}


def logit_distillation_loss(
    student_logits: Array,
    teacher_logits: Array,
    token_weight: Array,
    *,
    divergence: str | Divergence = "forward",
    temperature: float = 1.0,
) -> tuple[Array, dict[str, Array]]:
    """``sum_t token_weight_t * divergence(student_t, teacher_t)`` between whole distributions over one vocabulary.

    Args:
      student_logits, teacher_logits: ``[B, T, V]``; entry t is of the distribution that token t was drawn from. The gradient
        flows to the student. Whole logits are large: give slices of T, the sum over them is the loss.
      token_weight: ``[B, T]``, from ``token_weights`` over the whole update.
      divergence: ``forward``, ``reverse``, ``js``, or a function of two arrays of log-probabilities
        (``functools.partial(generalised_js, beta=0.9)``).
      temperature: both logits are divided by it. The loss is not multiplied by its square, as some do.

    Returns:
      ``(loss, metrics)``: ``divergence`` (weighted mean), ``teacher_agreement`` (share of tokens where both find the same one
      likeliest), ``student_entropy``, ``tokens``, ``weight``, ``loss``.

    Raises:
      ValueError: arrays of other shapes (two vocabularies can't be compared), an unknown divergence.
    """
    if not callable(divergence) and divergence not in DIVERGENCES:
        raise ValueError(f"divergence {divergence!r} is unknown; known: {', '.join(DIVERGENCES)}, or a function")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, but is {temperature}")
    same_shapes("student_logits", student_logits, teacher_logits=teacher_logits)
    same_shapes("student_logits[..., 0]", student_logits[..., 0], token_weight=token_weight)
    compare = divergence if callable(divergence) else DIVERGENCES[divergence]
    counted = (jnp.asarray(token_weight) != 0)[..., None]

    def log_probabilities(logits: Array) -> Array:
        logits = jnp.asarray(logits, jnp.promote_types(jnp.result_type(logits), jnp.float32))
        return jax.nn.log_softmax(jnp.where(counted, logits, 0) / temperature)

    student = log_probabilities(student_logits)
    teacher = jax.lax.stop_gradient(log_probabilities(teacher_logits))
    weight, distance = masked_to_zero(token_weight, compare(student, teacher))
    possible = jnp.where(student > -jnp.inf, student, 0)
    metrics = {
        "divergence": weighted_mean(distance, weight),
        "teacher_agreement": weighted_mean(jnp.argmax(student, -1) == jnp.argmax(teacher, -1), weight),
        "student_entropy": weighted_mean(-jnp.sum(jnp.exp(student) * possible, axis=-1), weight),
    }
    return finished(weight, distance, metrics)


def on_policy_distillation_advantages(teacher_logprobs: Array, old_logprobs: Array) -> Array:
    """``log p_teacher - log pi_old`` of what the student sampled, ``[B, T]``: the advantages of on-policy distillation.

    With them the policy gradient lowers ``KL(student || teacher)`` token by token, from two log-probabilities and no logits:
    ``grpo_loss(..., config=PolicyLoss(surrogate="none", kl="none"))``, token weights ``token_mean``. Teacher and student share
    a tokenizer. Differences are cut to plus and minus ``LOG_RATIO_BOUND``, also where the teacher says -inf. (Thinking Machines Lab, "On-policy
    distillation", 2025; GKD, arXiv 2306.13649.)
    """
    return jax.lax.stop_gradient(log_ratio(floored(teacher_logprobs), floored(old_logprobs)))
