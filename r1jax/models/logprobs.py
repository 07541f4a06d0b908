"""The one function that gives tokens their log-probabilities: old, reference and loss passes are all this."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models import forward, head_weight
from r1jax.models.config import ModelConfig
from r1jax.models.precision import cast
from r1jax.ops.head import selected_logprobs


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
      of the distribution which it was drawn from. Both are 0 on the first token of a segment and in padding.
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
    # The last position predicts nothing; keeping it keeps the length, and with it the chunks, round.
    following = jnp.pad(batch.tokens[:, 1:], ((0, 0), (0, 1)))
    predicted, entropy = selected_logprobs(hidden, head, following, temperature)
    continues = (batch.segment_ids[:, 1:] == batch.segment_ids[:, :-1]) & (batch.segment_ids[:, 1:] > 0)

    def shift(x: jax.Array) -> jax.Array:
        return jnp.pad(jnp.where(continues, x[:, :-1], 0), ((0, 0), (1, 0)))

    return shift(predicted), shift(entropy), aux
