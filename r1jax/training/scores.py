"""Reward models: losses on the scores of packed sequences, and their micro-step.

``completion_mask`` is 1 on the one token of each sequence from which its score is read, the last. ``token_weight`` says there how
much the pair or the response counts in the whole update. A pair lies in one row (``data.packing.pack_together``), so that no
micro-batch and no mesh comes between its two scores: the loss stays a weighted sum over tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from r1jax.losses import pairwise_reward_loss, pointwise_reward_loss
from r1jax.losses.sequences import sequence_sum
from r1jax.models import ModelConfig, statistics
from r1jax.models.scores import packed_scores
from r1jax.sharding import Layout
from r1jax.training.auxiliary import AuxiliaryLoss, no_auxiliary_loss
from r1jax.training.steps import GradientStep, Metrics

# (scores [B, T], batch) -> (loss, metrics), as a ``TokenLoss`` is of log-probabilities.
ScoreLoss = Callable[[jax.Array, Any], tuple[jax.Array, Metrics]]


def pairwise_score_loss(scores: jax.Array, batch: Any) -> tuple[jax.Array, Metrics]:
    """Bradley-Terry on a batch: sequence 2i is the better one of pair i, 2i + 1 the worse one. A pair's weight stands on the last
    token of the better one."""
    last, worse = batch.completion_mask > 0, batch.sequence_index % 2 == 1
    pair = batch.sequence_index // 2
    chosen, rejected = (sequence_sum(scores, last & side, pair) for side in (~worse, worse))
    return pairwise_reward_loss(chosen, rejected, batch.token_weight)


def pointwise_score_loss(scores: jax.Array, batch: Any) -> tuple[jax.Array, Metrics]:
    """Binary cross-entropy on a batch, with its ``labels``."""
    return pointwise_reward_loss(scores, batch.labels, batch.token_weight)


class ScoreMicroStep(GradientStep):
    """The micro-step of losses on scores.

    Args:
      config: of a reward model.
      layout: the training layout.
      score_loss: see ``ScoreLoss``.
      compute_dtype: see ``models.precision``; the master weights are cast once, inside.
      remat: a name of ``models.REMAT_POLICIES``.
      auxiliary: the loss of what the forward pass tells besides.

    Raises:
      ValueError: a model without a scalar head.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: Layout,
        score_loss: ScoreLoss,
        *,
        compute_dtype: Any = jnp.float32,
        remat: str = "nothing",
        auxiliary: AuxiliaryLoss = no_auxiliary_loss,
    ):
        if not config.num_labels:
            raise ValueError("a loss on scores for a model without a scalar head (num_labels is 0)")

        def loss(params: Any, batch: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            scores, aux = packed_scores(config, params, batch, compute_dtype, remat)
            value, metrics = score_loss(scores, batch)
            more, told = auxiliary(aux, batch)
            return value + more, (metrics | told, statistics(config, aux, batch.segment_ids > 0))

        super().__init__(config, layout, loss)
