"""Log-probabilities of the tokens of packed rows: old, reference and loss passes are all ``token_logprobs``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models import forward, head_weight, mtp_hidden
from r1jax.models.config import ModelConfig
from r1jax.models.precision import cast
from r1jax.ops.head import head_logits, selected_logprobs


def token_logprobs(
    config: ModelConfig,
    params: Any,
    batch: Any,
    temperature: float = 1.0,
    compute_dtype: Any = jnp.float32,
    remat: str = "nothing",
) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """Log-probability of every token of packed rows given those before it in its segment.

    Args:
      config: static.
      params: nested dict, in any dtype; they are cast to ``compute_dtype`` here, once.
      batch: ``data.Batch``; ``tokens``, ``positions``, ``segment_ids`` and ``routes`` are read.
      temperature: of the distribution that is scored; a Python number, so that every pass holds the same constant.
      compute_dtype: see ``models.precision``.
      remat: a name of ``models.REMAT_POLICIES``.

    Returns:
      ``(logprobs [B, T], entropy [B, T], aux)`` in float32 at least. Entry t belongs to ``tokens[t]``: the entropy is that
      of the distribution which it was drawn from. Both are 0 on the first token of a segment and in padding. ``aux``: the
      model's, and ``hidden`` ``[B, T, D]`` for ``mtp_logprobs``.
    """
    hidden, _, aux = forward(
        config,
        cast(params, compute_dtype),
        batch.tokens,
        batch.positions,
        segment_ids=batch.segment_ids,
        routes=batch.routes,
        remat=remat,
    )
    # The head as it is stored: selected_logprobs casts it alike, and so its gradient is not rounded.
    head = head_weight(config, params)
    (predicted, entropy), said = _ahead(hidden, head, batch, 1, temperature), segment_continues(batch.segment_ids, 1)
    predicted, entropy = (_shift(jnp.where(said, x, 0), 1) for x in (predicted, entropy))
    return predicted, entropy, aux | {"hidden": hidden}


def mtp_logprobs(
    config: ModelConfig,
    params: Any,
    batch: Any,
    hidden: jax.Array,
    temperature: float = 1.0,
    compute_dtype: Any = jnp.float32,
    remat: str = "nothing",
) -> tuple[jax.Array, dict[str, Any]]:
    """What the depths of multi-token prediction say of every token of packed rows (for ``losses.mtp_loss``).

    Args:
      config: static; ``num_nextn_predict_layers`` M of at least 1.
      params, batch, temperature, compute_dtype, remat: as ``token_logprobs`` takes them.
      hidden: ``[B, T, D]``, ``aux["hidden"]`` of ``token_logprobs``.

    Returns:
      ``(logprobs [M, B, T], aux)``. Entry ``[k - 1, b, t]`` is the log-probability of ``tokens[b, t]`` by depth k, which looks
      from the token k + 1 places before it and has seen those between; 0 on the first k + 1 tokens of a segment and in padding.
      ``aux``: the model's, for ``statistics``.

    Raises:
      ValueError: a model without multi-token prediction.
    """
    states, aux = mtp_hidden(
        config, cast(params, compute_dtype), hidden, batch.tokens, batch.positions, batch.segment_ids, remat=remat
    )
    head = head_weight(config, params)

    def depth(k: int, state: jax.Array) -> jax.Array:
        predicted = _ahead(state, head, batch, k + 1, temperature)[0]
        return _shift(jnp.where(segment_continues(batch.segment_ids, k + 1), predicted, 0), k + 1)

    return jnp.stack([depth(k, state) for k, state in enumerate(states, 1)]), aux


def mtp_acceptance(config: ModelConfig, params: Any, batch: Any, compute_dtype: Any = jnp.float32) -> jax.Array:
    """How often a guess of multi-token prediction is the model's own next choice, on given text.

    Args:
      config, params, batch, compute_dtype: as ``token_logprobs`` takes them; ``completion_mask`` is read too.

    Returns:
      f32 ``[M, 2]``: for depth k, for how many tokens of completions its likeliest guess is that of the model itself, which sees k
      tokens more, and of how many tokens. The first over the second is the share of greedy guesses that would be accepted.
    """
    params = cast(params, compute_dtype)
    hidden, _, _ = forward(config, params, batch.tokens, batch.positions, segment_ids=batch.segment_ids)
    states, _ = mtp_hidden(config, params, hidden, batch.tokens, batch.positions, batch.segment_ids)
    head = head_weight(config, params)

    def greedy(states: jax.Array) -> jax.Array:
        chosen = jax.lax.map(lambda state: jnp.argmax(head_logits(state, head), axis=-1), states.swapaxes(0, 1))
        return chosen.T

    own, counts = _shift(greedy(hidden), 1), []
    for k, state in enumerate(states, 1):
        said = _shift(segment_continues(batch.segment_ids, k + 1), k + 1) & (batch.completion_mask > 0)
        counts.append([jnp.sum(said & (_shift(greedy(state), k + 1) == own)), jnp.sum(said)])
    return jnp.array(counts, jnp.float32)


def segment_continues(segment_ids: jax.Array, places: int) -> jax.Array:
    """bool ``[B, T]``: whether the token so many places on belongs to the same sequence; false on padding."""
    ahead = jnp.pad(segment_ids[:, places:], ((0, 0), (0, min(places, segment_ids.shape[1]))))
    return (ahead == segment_ids) & (segment_ids > 0)


def _ahead(hidden: jax.Array, head: jax.Array, batch: Any, places: int, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy, at each place, of the token so many places on."""
    # Nothing is said of what lies past the end; keeping those places keeps the length, and with it the chunks, round.
    targets = jnp.pad(batch.tokens[:, places:], ((0, 0), (0, min(places, batch.tokens.shape[1]))))
    return selected_logprobs(hidden, head, targets, temperature)


def _shift(x: jax.Array, places: int) -> jax.Array:
    """Every entry so many places on; 0 where none comes from."""
    return jnp.pad(x, ((0, 0), (places, 0)))[:, : x.shape[1]]
