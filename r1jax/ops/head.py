"""The chunked head: log-probabilities of chosen tokens, and entropy, from hidden states.

The logits of a batch, ``[B, T, V]``, would be the largest array of a training step by far. Here they exist for a few
positions at a time: a scan over chunks computes them, keeps two numbers per token, and the backward pass computes them
again. Temporary memory is one chunk's logits and, backwards, the head's gradient.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from r1jax import sharding

Array = jax.Array


def selected_logprobs(
    hidden: Array, head: Array, targets: Array, temperature: float | Array = 1.0, *, chunk: int = 1024
) -> tuple[Array, Array]:
    """Log-probability of each target under ``softmax(hidden @ head / temperature)``, and that distribution's entropy.

    Both results can be differentiated with respect to ``hidden`` and ``head``, not with respect to ``temperature``.
    Products accumulate in float32 at least (float64 for float64 inputs), at the highest precision where ``hidden`` is
    float32. ``head`` is used in ``hidden``'s dtype; its gradient accumulates in float32 and has ``head``'s own dtype, so
    that a float32 head beside bfloat16 states gets an unrounded gradient.

    Under an ambient layout (``sharding.Layout.use``) the rows stay on their shards, the vocabulary may be divided, and
    each shard sums its own gradient of the head: one reduction in all, not one per chunk.

    Args:
      hidden: ``[B, T, D]``.
      head: ``[D, V]``.
      targets: int ``[B, T]``, in ``[0, V)``. Entry t is scored by ``hidden[:, t]``: the caller shifts.
      temperature: positive.
      chunk: tokens per batch shard whose logits are alive at once; at least one position of each row.

    Returns:
      ``(logprobs [B, T], entropy [B, T])`` in nats, float32 at least; log-probabilities are at most 0.

    Raises:
      ValueError: shapes that do not fit each other or the mesh, a temperature or chunk that is not positive.
    """
    if hidden.ndim != 3 or head.ndim != 2 or hidden.shape[-1] != head.shape[0] or targets.shape != hidden.shape[:2]:
        raise ValueError(
            f"hidden [B, T, D] {hidden.shape}, head [D, V] {head.shape} and targets [B, T] {targets.shape} do not fit"
        )
    if isinstance(temperature, (int, float)) and temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}; greedy decoding is scored at temperature 1")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, not {chunk}")
    rows, length, _ = hidden.shape
    layout = sharding.current()
    shards = 1 if layout is None else layout.batch_shards
    if rows % shards:
        raise ValueError(f"{rows} rows do not divide over {shards} batch shards; pack rows to a multiple of {shards}")
    positions = min(length, max(1, chunk * shards // rows))
    chunks = -(-length // positions)

    def split(x: Array) -> Array:  # [B, T, ...] -> [chunks, shards, B / shards, positions, ...]
        x = jnp.pad(x, [(0, 0), (0, chunks * positions - length)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(shards, rows // shards, chunks, positions, *x.shape[2:])
        return jnp.moveaxis(x, 2, 0)

    def join(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 2).reshape(rows, chunks * positions)[:, :length]

    scale = jnp.asarray(temperature, _accumulator(hidden))
    if hidden.dtype == scale.dtype:
        # Dividing the states and not the logits leaves the compiler nothing to fuse in one way into a scoring pass and in
        # another into the loss. bfloat16 states would be rounded by it.
        hidden, scale = hidden / scale, jnp.ones_like(scale)
    with jax.named_scope("head"):
        logprobs, entropy = _chunked(split(hidden), head, split(targets), scale)
    return join(logprobs), join(entropy)


def head_logits(hidden: Array, head: Array) -> Array:
    """Logits ``[B, V]`` of one position of each row, ``hidden [B, D]``: what the sampler draws from. float32 at least."""
    with jax.named_scope("head"):
        logits = jnp.einsum(
            "BD,DV->BV",
            hidden,
            _gathered(head, hidden.dtype),
            precision=_precision(hidden),
            preferred_element_type=_accumulator(hidden),
        )
        return sharding.constrain(logits, "batch", "activation_vocab")


def _accumulator(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _precision(x: Array) -> Precision:
    # f32 products are not f32 by default on TPU and H200; bfloat16 ones are exact before they are summed.
    return Precision.DEFAULT if x.dtype == jnp.bfloat16 else Precision.HIGHEST


def _gathered(head: Array, dtype: jnp.dtype) -> Array:
    """The head in the compute dtype, gathered over everything but the vocabulary once, before the loop."""
    return sharding.constrain(head.astype(dtype), None, "activation_vocab")


def _logits(hidden: Array, head: Array, temperature: Array) -> Array:
    """Temperature-scaled logits of one chunk: ``[shards, rows, positions, V]``."""
    logits = jnp.einsum(
        "SBTD,DV->SBTV", hidden, head, precision=_precision(hidden), preferred_element_type=_accumulator(hidden)
    )
    return sharding.constrain(logits, "batch", None, None, "activation_vocab") / temperature


def _chosen(logits: Array, targets: Array) -> Array:
    """Where the vocabulary's index is the target: unlike a gather, it needs no whole vocabulary on one device."""
    return jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]


@jax.custom_vjp
def _chunked(hidden: Array, head: Array, targets: Array, temperature: Array) -> tuple[Array, Array]:
    return _forward(hidden, head, targets, temperature)[0]


def _forward(hidden, head, targets, temperature):
    weight = _gathered(head, hidden.dtype)

    def one(_, inputs):
        states, wanted = inputs
        logits = _logits(states, weight, temperature)
        top = jnp.max(logits, axis=-1, keepdims=True)
        shifted = logits - top
        exponentials = jnp.exp(shifted)
        total = jnp.sum(exponentials, axis=-1)
        log_total = jnp.log(total)
        logprob = jnp.sum(jnp.where(_chosen(logits, wanted), shifted, 0), axis=-1) - log_total
        entropy = log_total - jnp.sum(exponentials * shifted, axis=-1) / total
        return None, (logprob, entropy, top[..., 0] + log_total)

    _, (logprobs, entropy, normaliser) = jax.lax.scan(one, None, (hidden, targets))
    return (logprobs, entropy), (hidden, head, targets, temperature, entropy, normaliser)


def _backward(saved, cotangents):
    hidden, head, targets, temperature, entropy, normaliser = saved
    weight = _gathered(head, hidden.dtype)
    accumulator, precision = _accumulator(hidden), _precision(hidden)

    def one(head_gradient, inputs):
        states, wanted, entropies, normalisers, by_logprob, by_entropy = inputs
        logprobs = _logits(states, weight, temperature) - normalisers[..., None]
        probabilities = jnp.exp(logprobs)
        # d logprob / d logit_v = [v is the target] - p_v;  d entropy / d logit_v = -p_v (log p_v + entropy)
        gradient = by_logprob[..., None] * (_chosen(logprobs, wanted) - probabilities)
        gradient -= by_entropy[..., None] * probabilities * (logprobs + entropies[..., None])
        gradient = (gradient / temperature).astype(states.dtype)
        by_states = jnp.einsum("SBTV,DV->SBTD", gradient, weight, precision=precision, preferred_element_type=accumulator)
        by_head = jnp.einsum("SBTD,SBTV->SDV", states, gradient, precision=precision, preferred_element_type=accumulator)
        head_gradient = sharding.constrain(head_gradient + by_head, "batch", None, "activation_vocab")
        return head_gradient, by_states.astype(states.dtype)

    # One sum per batch shard: were it one array, every chunk would need a reduction over the mesh.
    zeros = jnp.zeros((hidden.shape[1], *head.shape), accumulator)
    zeros = sharding.constrain(zeros, "batch", None, "activation_vocab")
    by_head, by_hidden = jax.lax.scan(one, zeros, (hidden, targets, entropy, normaliser, *cotangents))
    return by_hidden, jnp.sum(by_head, axis=0).astype(head.dtype), None, None


_chunked.defvjp(_forward, _backward)
