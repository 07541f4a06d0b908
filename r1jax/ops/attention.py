"""Attention: packed rows for training and prefill, blocks merged by logsumexp for decoding.

Scores, softmax and sums are float32 (float64 for float64 inputs). One implementation so far, in plain XLA; kernels for
TPU and GPU come behind these signatures, chosen by ``jax.sharding.get_abstract_mesh().abstract_device.platform`` (the
mesh's platform, which is not the default backend's when compiling ahead of time).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST
# Rows up to WHOLE tokens are attended in one piece; the scores of longer ones, which grow with the square of the length (9.7 GB a layer
# for two heads of 34,816 tokens), are made for so many queries at a time.
WHOLE, QUERIES = 4_096, 512


def _precision(x: jax.Array) -> jax.lax.Precision | None:
    """float32 products in full on TPU and GPU too; bfloat16 products are exact in float32 as they are."""
    return None if x.dtype == jnp.bfloat16 else HIGHEST


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, scale: float) -> tuple[jax.Array, jax.Array]:
    """Attention over one block of keys, unnormalised across blocks.

    Args:
      q: ``[B, T, N, H]``; the N query heads share K key heads in order, N a multiple of K.
      k, v: ``[B, K, S, H]``: as caches hold them, so that a product reads them in place.
      mask: bool, broadcastable to ``[B, T, S]``; true where the query may look.
      scale: of the scores.

    Returns:
      The attended values ``[B, T, N, H]`` in the accumulation dtype and the logsumexp of the scores ``[B, T, N]``.
      Where the mask lets nothing through the values are 0 and the logsumexp is -inf.
    """
    B, T, N, H = q.shape
    K, S = k.shape[1:3]
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    q = q.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", q, k, precision=_precision(q), preferred_element_type=dtype) * scale
    seen = jnp.broadcast_to(mask, (B, T, S))[:, None, None]
    scores = jnp.where(seen, scores, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True, initial=jnp.finfo(dtype).min))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, -1, keepdims=True)
    # In the order of the product's own output: asked for BTKGH, the CPU would multiply the transposed values, many times slower.
    values = jnp.einsum(
        "BKGTS,BKSH->BKGTH", weights.astype(v.dtype), v, precision=_precision(v), preferred_element_type=dtype
    )
    some = total > 0
    values = jnp.where(some, values / jnp.where(some, total, 1), 0)
    logsumexp = jnp.where(some, jnp.log(jnp.where(some, total, 1)) + top, -jnp.inf)
    values, logsumexp = (jnp.moveaxis(x, 3, 1) for x in (values, logsumexp))  # [B, T, K, G, ...]
    return values.reshape(B, T, N, -1), logsumexp.reshape(B, T, N)


def merge(parts: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Joins what ``attend`` gave for several blocks of keys, as if they had been one. At least one must be non-empty."""
    logsumexps = jnp.stack([logsumexp for _, logsumexp in parts])
    shares = jax.nn.softmax(logsumexps, axis=0)
    return sum(share[..., None] * values for share, (values, _) in zip(shares, parts))


def packed_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, scale: float) -> jax.Array:
    """Causal attention inside each segment of packed rows; segment 0 (padding) attends nothing and gets 0.

    Args:
      q: ``[B, T, N, H]``. k, v: ``[B, T, K, H]``. segment_ids: int32 ``[B, T]``.

    Returns:
      ``[B, T, N, H]`` in q's dtype.
    """
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    places = jnp.arange(q.shape[1])
    if len(places) > WHOLE:
        return _by_blocks(q, k, v, segment_ids, places, scale)
    return attend(q, k, v, _packed_mask(segment_ids, places, segment_ids, places), scale)[0].astype(q.dtype)


def _packed_mask(own: jax.Array, place: jax.Array, segment_ids: jax.Array, places: jax.Array) -> jax.Array:
    """``[B, t, T]``: whether queries of segments ``own [B, t]`` at ``place [t]`` may look at the keys of a row."""
    mask = (own[:, :, None] == segment_ids[:, None, :]) & (own[:, :, None] != 0)
    return mask & (place[:, None] >= places[None, :])


def _by_blocks(q, k, v, segment_ids, places, scale: float) -> jax.Array:
    """``packed_attention`` of a few queries at a time, whose scores are made again for the backward pass."""
    T = len(places)
    count = -(-T // QUERIES)

    def split(x: jax.Array, axis: int) -> jax.Array:
        """Blocks of queries, ``[count, ...]``; the last one ends in padding, which attends nothing."""
        padded = jnp.pad(x, [(0, count * QUERIES - T if a == axis else 0) for a in range(x.ndim)])
        return jnp.moveaxis(padded.reshape(*x.shape[:axis], count, QUERIES, *x.shape[axis + 1 :]), axis, 0)

    # Their gradients are sums over the blocks: in the accumulation dtype, as those of one piece are.
    wide = jnp.promote_types(q.dtype, jnp.float32)
    keys, values = k.astype(wide), v.astype(wide)

    # A loop keeps what is made again apart from the forward pass: no barrier is needed, which would hinder fusion.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(part: tuple[jax.Array, ...]) -> jax.Array:
        queries, own, place = part
        mask = _packed_mask(own, place, segment_ids, places)
        return attend(queries, keys.astype(k.dtype), values.astype(v.dtype), mask, scale)[0].astype(q.dtype)

    found = jnp.moveaxis(jax.lax.map(block, (split(q, 1), split(segment_ids, 1), split(places, 0))), 0, 1)
    return found.reshape(q.shape[0], count * QUERIES, *found.shape[3:])[:, :T]


def decode_attention(
    q: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    prompt_length: jax.Array,
    own: tuple[jax.Array, jax.Array],
    own_length: jax.Array,
    newest: tuple[jax.Array, jax.Array] | None,
    scale: float,
) -> jax.Array:
    """One query of each lane over its prompt's block, its own, and the query's own entry.

    A prompt's keys are held and read once for all its lanes: to that block the lanes are queries of one row.

    Args:
      q: ``[P*lanes, 1, N, H]``.
      prompt: keys and values ``[P, K, S, H]``. prompt_length: ``[P]``.
      own: keys and values ``[P*lanes, K, S', H]``. own_length: ``[P*lanes]``, entries that are valid.
      newest: the query's own keys and values ``[P*lanes, K, 1, H]``; None where ``own`` holds them already.

    Returns:
      ``[P*lanes, 1, N, H]`` in q's dtype.
    """
    B, _, N, H = q.shape
    P, _, S, _ = prompt[0].shape
    in_prompt = (jnp.arange(S) < prompt_length[:, None])[:, None]
    values, logsumexp = attend(q.reshape(P, B // P, N, H), *prompt, in_prompt, scale)
    in_own = (jnp.arange(own[0].shape[2]) < own_length[:, None])[:, None]
    parts = [(values.reshape(B, 1, N, -1), logsumexp.reshape(B, 1, N)), attend(q, *own, in_own, scale)]
    if newest is not None:
        parts.append(attend(q, *newest, jnp.ones((1, 1, 1), bool), scale))
    return merge(parts).astype(q.dtype)
