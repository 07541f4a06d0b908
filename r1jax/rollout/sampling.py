"""From logits to a token and its log-probability, by one uniform number per sequence and position."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Distribution(NamedTuple):
    """What is sampled from, as traced scalars: changing a number compiles nothing.

    Attributes:
      temperature: of the logits; 0 is greedy.
      top_p, top_k, min_p: restrictions, or None in training, where the full softmax is sampled. The restrictions are
        applied in this order: the ``top_k`` most probable (0: all), the fewest that reach ``top_p``, those at least
        ``min_p`` times as probable as the most probable one.
    """

    temperature: jax.Array
    top_p: jax.Array | None = None
    top_k: jax.Array | None = None
    min_p: jax.Array | None = None


def sequence_keys(seed: jax.Array, rollout: jax.Array, prompt_ids: jax.Array, samples: jax.Array) -> jax.Array:
    """A random key for each sequence, folded from (run seed, rollout, prompt, sample) and nothing else.

    Args:
      seed, rollout: int32 scalars.
      prompt_ids, samples: int32 ``[B]``.

    Returns:
      uint32 ``[B, 2]``, the data of the keys.
    """
    run = jax.random.fold_in(jax.random.key(seed), rollout)

    def fold(prompt_id, sample):
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(run, prompt_id), sample))

    return jax.vmap(fold)(prompt_ids, samples)


def uniforms(keys: jax.Array, positions: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """One number in [0, 1) per row: ``keys`` uint32 ``[B, 2]`` folded with ``positions`` int32 ``[B]``.

    The folded key is not used as a key: its own bits, the output of the generator's one hash, are the number.
    """

    def fold(key, position):
        return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), position))

    high, low = (word.astype(dtype) for word in jnp.split(jax.vmap(fold)(keys, positions) >> 8, 2, axis=-1))
    # 24 bits in float32 are exact and below 1; more would round up to it.
    number = high * 2.0**-24 if dtype == jnp.float32 else high * 2.0**-24 + low * 2.0**-48
    return number[:, 0]


def restrict(weights: jax.Array, distribution: Distribution) -> jax.Array:
    """Sets the weights ``[B, V]`` of tokens outside the restricted distribution to 0; ties of the last one kept stay.

    Each restriction keeps what weighs at least some threshold, and finds it by bisection: sorting the vocabulary takes many
    times longer.
    """
    top_k, top_p, min_p = distribution.top_k, distribution.top_p, distribution.min_p

    def most_probable():
        least = _threshold(weights, lambda heavier: jnp.sum(heavier, -1, keepdims=True) < top_k)
        heavier = weights > least
        ties = top_k - jnp.sum(heavier, -1, keepdims=True)  # of the threshold's weight, so many are among the top k
        return least, jnp.sum(jnp.where(heavier, weights, 0), -1, keepdims=True) + ties * least

    def all_of_them():
        total = jnp.sum(weights, -1, keepdims=True)
        return jnp.zeros_like(total), total

    least, total = jax.lax.cond((top_k > 0) & (top_k < weights.shape[-1]), most_probable, all_of_them)
    nucleus = _threshold(weights, lambda heavier: jnp.sum(jnp.where(heavier, weights, 0), -1, keepdims=True) < top_p * total)
    floor = min_p.astype(weights.dtype) * jnp.max(weights, -1, keepdims=True)
    return jnp.where(weights >= jnp.maximum(jnp.maximum(least, nucleus), floor), weights, 0)


def _threshold(weights: jax.Array, holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The smallest number ``[B, 1]`` of which it ``holds`` that ``weights [B, V]``, none negative, are heavier: one of the weights,
    or 0. It must hold for numbers above one for which it does, and for the greatest weight."""
    # The bits of floats from 0 on, read as integers, are in the floats' order.
    integer = jnp.int64 if weights.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(weights, integer)
    high = jnp.max(bits, -1, keepdims=True)

    def halve(_, bounds):
        low, high = bounds  # it does not hold of low, and holds of high
        middle = low + (high - low) // 2
        held = holds(bits > middle)
        return jnp.where(held, low, middle), jnp.where(held, middle, high)

    steps = jnp.iinfo(integer).bits - 1
    _, high = jax.lax.fori_loop(0, steps, halve, (jnp.full_like(high, -1), high))
    return jax.lax.bitcast_convert_type(high, weights.dtype)


def invert_cdf(weights: jax.Array, u: jax.Array) -> jax.Array:
    """The index at which the cumulative sum of ``weights [B, V]`` passes ``u [B]`` times its total.

    In two levels, sums of blocks and then inside the block, which reads the vocabulary once and needs no noise per token.
    An index of weight 0 is never returned.
    """
    B, V = weights.shape
    width = max(1, math.isqrt(V))
    blocks = -(-V // width)
    weights = jnp.pad(weights, ((0, 0), (0, blocks * width - V))).reshape(B, blocks, width)
    block, target = _pass(jnp.sum(weights, -1), u * jnp.sum(weights, (-2, -1)))
    inside, _ = _pass(jnp.take_along_axis(weights, block[:, None, None], 1)[:, 0], target)
    return (block * width + inside).astype(jnp.int32)


def _pass(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The index of some weight in whose part of the cumulative sum ``target [B]`` lies, and what is left inside it."""
    below = jnp.cumsum(weights, -1) - weights
    # The last index of some weight that begins at or before the target. Not the first whose sum passes it: cumsum adds
    # as a tree, so that a sum may rise by a rounding where the weight is 0.
    numbers = jnp.arange(weights.shape[-1])
    begun = jnp.max(jnp.where((weights > 0) & (below <= target[:, None]), numbers, -1), -1)
    index = jnp.where(begun >= 0, begun, jnp.argmax(weights > 0, -1))
    return index, target - jnp.take_along_axis(below, index[:, None], -1)[:, 0]


def sample(logits: jax.Array, u: jax.Array, distribution: Distribution) -> tuple[jax.Array, jax.Array]:
    """Draws a token for each row.

    Args:
      logits: float32 ``[B, V]``, not yet divided by the temperature.
      u: ``[B]`` in [0, 1).

    Returns:
      tokens int32 ``[B]``, and their log-probabilities ``[B]`` under the temperature-scaled *full* softmax (at
      temperature 1 for greedy), whatever the restrictions.
    """
    greedy = distribution.temperature == 0
    logits = logits / jnp.where(greedy, 1, distribution.temperature).astype(logits.dtype)
    top = jnp.max(logits, -1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, -1)

    def draw():
        return invert_cdf(weights if distribution.top_p is None else restrict(weights, distribution), u)

    tokens = jax.lax.cond(greedy, lambda: jnp.argmax(logits, -1).astype(jnp.int32), draw)
    chosen = jnp.take_along_axis(logits, tokens[:, None], -1)[:, 0]
    return tokens, chosen - top[:, 0] - jnp.log(total)
