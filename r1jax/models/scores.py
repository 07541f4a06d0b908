"""Scores of the sequences of packed rows: a reward model's pass, in training and in use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models import forward, token_scores
from r1jax.models.config import ModelConfig
from r1jax.models.precision import cast


def packed_scores(
    config: ModelConfig, params: Any, batch: Any, compute_dtype: Any = jnp.float32, remat: str = "nothing"
) -> tuple[jax.Array, dict[str, Any]]:
    """What a reward model's head reads at every token of packed rows.

    Args:
      config: static; of a reward model.
      params: nested dict, in any dtype; they are cast to ``compute_dtype`` here, once, save for the head, which is read as it is
        stored.
      batch: ``data.Batch``; ``tokens``, ``positions`` and ``segment_ids`` are read.
      compute_dtype: see ``models.precision``.
      remat: a name of ``models.REMAT_POLICIES``.

    Returns:
      ``(scores [B, T], aux)``, float32 at least; a sequence's score is the entry of its last token. ``aux``: the model's.

    Raises:
      ValueError: a model without a scalar head.
    """
    hidden, _, aux = forward(
        config, cast(params, compute_dtype), batch.tokens, batch.positions, segment_ids=batch.segment_ids, remat=remat
    )
    return token_scores(config, params, hidden), aux
