"""A policy loss as a researcher might write it, and the same with mistakes: what the laws are shown to tell apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BETA, LOW, HIGH = 0.04, 0.2, 0.2


def own_grpo(logprobs, old_logprobs, advantages, token_weight, *, ref_logprobs):
    """GRPO in a dozen lines; keeps every law."""
    weight = token_weight.astype(jnp.promote_types(logprobs.dtype, jnp.float32))
    counted = weight != 0
    new, old, A, ref = (
        jnp.where(counted, x.astype(weight.dtype), 0) for x in (logprobs, old_logprobs, advantages, ref_logprobs)
    )
    new, old, ref = (jnp.maximum(x, -1e4) for x in (new, old, ref))
    ratio, d = (jnp.exp(jnp.clip(x, -20, 20)) for x in (new - old, ref - new))
    surrogate = jnp.minimum(ratio * A, jnp.clip(ratio, 1 - LOW, 1 + HIGH) * A)
    kl = d - jnp.log(d) - 1
    return jnp.sum(weight * jnp.where(counted, BETA * kl - surrogate, 0)), {"ratio": jnp.max(ratio)}


def own_gspo(logprobs, old_logprobs, advantages, token_weight, *, sequence_index):
    """A ratio per sequence, in ten lines; keeps every law."""
    weight = token_weight.astype(jnp.promote_types(logprobs.dtype, jnp.float32))
    counted = weight != 0
    new, old, A = (jnp.where(counted, x.astype(weight.dtype), 0) for x in (logprobs, old_logprobs, advantages))
    difference = jnp.clip(jnp.maximum(new, -1e4) - jnp.maximum(old, -1e4), -20, 20)
    same = (sequence_index[:, :, None] == sequence_index[:, None, :]) & counted[:, None, :]
    ratio = jnp.exp(jnp.einsum("bst,bt->bs", same * 1.0, difference) / jnp.maximum(same.sum(-1), 1))
    return -jnp.sum(weight * jnp.minimum(ratio * A, jnp.clip(ratio, 0.9, 1.1) * A))


def _with(change):
    """``own_grpo`` after a change of what it is given."""

    def loss(logprobs, old_logprobs, advantages, token_weight, *, ref_logprobs):
        given = change(new=logprobs, old=old_logprobs, A=advantages, w=token_weight, ref=ref_logprobs)
        return own_grpo(given["new"], given["old"], given["A"], given["w"], ref_logprobs=given["ref"])

    return loss


def _after(change):
    """``own_grpo`` whose loss is changed by a function of itself and the arrays."""

    def loss(logprobs, old_logprobs, advantages, token_weight, *, ref_logprobs):
        value, _ = own_grpo(logprobs, old_logprobs, advantages, token_weight, ref_logprobs=ref_logprobs)
        return change(value, token_weight, logprobs)

    return loss


def _masked_by_product(logprobs, old_logprobs, advantages, token_weight):
    ratio = jnp.exp(jnp.clip(logprobs - old_logprobs, -20, 20))
    return -jnp.sum(token_weight * ratio * advantages)


def _unbounded(logprobs, old_logprobs, advantages, token_weight):
    counted = token_weight != 0
    new, old, A = (jnp.where(counted, x, 0) for x in (logprobs, old_logprobs, advantages))
    return -jnp.sum(token_weight * jnp.exp(new - old) * A)


def _in_bfloat16(logprobs, old_logprobs, advantages, token_weight):
    counted = token_weight != 0
    new, old, A = (jnp.where(counted, x, 0) for x in (logprobs, old_logprobs, advantages))
    terms = jnp.exp(jnp.clip(jnp.maximum(new, -1e4) - jnp.maximum(old, -1e4), -20, 20)) * A
    return -jnp.sum(token_weight * terms.astype(logprobs.dtype).astype(jnp.float32))


def _of_probabilities(logprobs, old_logprobs, advantages, token_weight):
    counted = token_weight != 0
    new, old, A = (jnp.where(counted, x, 0) for x in (logprobs, old_logprobs, advantages))
    return -jnp.sum(token_weight * (1 + jnp.exp(new) - jnp.exp(old)) * A)


def _row_ratio(logprobs, old_logprobs, advantages, token_weight, *, sequence_index):
    return own_gspo(logprobs, old_logprobs, advantages, token_weight, sequence_index=jnp.zeros_like(sequence_index))


def _ratio_over_the_row_s_length(logprobs, old_logprobs, advantages, token_weight):
    counted = token_weight != 0
    new, old, A = (jnp.where(counted, x, 0) for x in (logprobs, old_logprobs, advantages))
    ratio = jnp.exp(jnp.clip(jnp.mean(new - old, axis=1, keepdims=True), -20, 20))
    return -jnp.sum(token_weight * ratio * A)


@jax.custom_jvp
def _halved(x):
    return x


_halved.defjvp(lambda primals, tangents: (primals[0], 0.5 * tangents[0]))


# what is wrong -> (the loss, the laws one of which must say so)
WRONG = {
    "divides by the micro-batch's weights": (_after(lambda v, w, x: v / jnp.maximum(w.sum(), 1e-9)), {"weights"}),
    "divides by the micro-batch's tokens": (_after(lambda v, w, x: v / jnp.maximum((w != 0).sum(), 1)), {"micro_batches"}),
    "a mean over rows": (_after(lambda v, w, x: v / len(w)), {"micro_batches", "padding"}),
    "a mean over all tokens": (_after(lambda v, w, x: v / w.size), {"micro_batches", "padding"}),
    "no weights at all": (_with(lambda new, old, A, w, ref: dict(new=new, old=old, A=A, w=1.0 * (w > 0), ref=ref)), {"weights"}),
    "a mask shifted by one": (
        _with(lambda new, old, A, w, ref: dict(new=new, old=old, A=A, w=jnp.roll(w, 1, axis=1), ref=ref)),
        {"weightless", "padding"},
    ),
    "weights passed as advantages (verl#2506)": (
        _with(lambda new, old, A, w, ref: dict(new=new, old=old, A=w, w=w, ref=ref)), {"direction"}),
    "maximises what it should minimise": (_after(lambda v, w, x: -v), {"direction"}),
    "old and new change places": (
        _with(lambda new, old, A, w, ref: dict(new=old, old=new, A=A, w=w, ref=ref)), {"direction"}),
    "a penalty that pushes away (RAGEN#58)": (
        _with(lambda new, old, A, w, ref: dict(new=new, old=old, A=A, w=w, ref=2 * jax.lax.stop_gradient(new) - ref)),
        {"towards_the_reference"},
    ),
    "NaN times a mask of 0 (OpenRLHF#1240)": (_masked_by_product, {"padding"}),
    "a ratio without bound": (_unbounded, {"finite"}),
    "computes in bfloat16": (_in_bfloat16, {"low_precision"}),
    "probabilities for their logarithms": (_of_probabilities, {"shift"}),
    "a row taken for a sequence": (_row_ratio, {"packing"}),
    "a sequence's mean over the row's length": (_ratio_over_the_row_s_length, {"padding"}),
    "a gradient that is not the loss's": (
        _with(lambda new, old, A, w, ref: dict(new=_halved(new), old=old, A=A, w=w, ref=ref)), {"derivative"}),
    "sorts the batch into pairs of rows": (
        _after(lambda v, w, x: v * (1 + 0.1 * jnp.sum(w[0] != 0))), {"order", "micro_batches", "weights"}),
}  # fmt: skip
