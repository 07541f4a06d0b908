"""Learning from judgements: packing of pairs and of labelled responses, updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r1jax import sharding
from r1jax.config import RewardModelSettings
from r1jax.data.batch import Batch
from r1jax.data.examples import Example
from r1jax.data.packing import PackItem, micro_batches, pack_together, spread
from r1jax.data.preferences import Labelled, Pair
from r1jax.losses import token_weights
from r1jax.models import ModelConfig
from r1jax.pipeline.updates import make_update
from r1jax.training import (
    ApplyStep,
    ScoreMicroStep,
    TrainState,
    ZeroGrads,
    abstract_state,
    init_state,
    make_optimizer,
    pairwise_score_loss,
    pointwise_score_loss,
    router_loss,
)


def pack_judged(judged: Sequence[Pair] | Sequence[Labelled], row_tokens: int, settings: RewardModelSettings) -> Batch:
    """The packed rows of one update, ``[rows, row_tokens]``; rows are a multiple of ``rows_per_microbatch``.

    A sequence's score is read from its last token, where its mask, label and weight stand. Both sequences of a pair lie in one
    row: sequence 2i is the better one of pair i, and has the weight; 2i + 1 is the other one. Weights are one over the pairs or
    responses of the whole update, so that neither the packing nor the micro-batches change the loss. What comes twice in an
    update counts twice.
    """
    members = len(judged[0].sequences)
    groups = [
        [_item(members * i + k, sequence) for k, sequence in enumerate(each.sequences)] for i, each in enumerate(judged)
    ]
    rows = pack_together(groups, row_tokens, settings.rows_per_microbatch)
    weights = np.zeros(members * len(judged))
    weights[::members] = 1 / len(judged)
    rows = rows._replace(token_weight=spread(rows, weights))
    if members == 1:
        rows = rows._replace(labels=spread(rows, np.array([each.label for each in judged])))
    if settings.router.balance:
        rows = rows._replace(balance_weight=token_weights(rows.segment_ids > 0, rows.sequence_index))
    return rows


def _item(index: int, sequence: Example) -> PackItem:
    return PackItem(index, sequence.tokens, len(sequence.tokens) - 1)


class Learner:
    """The compiled programs of a reward model's stage.

    Args:
      config: of the reward model.
      layout: the training layout.
      settings: of the stage.
      steps: updates of the whole stage, where the schedule ends.
      dtype: of computation.

    Raises:
      ValueError: rows that do not divide over the mesh.
    """

    def __init__(self, config: ModelConfig, layout: sharding.Layout, settings: RewardModelSettings, steps: int, dtype: Any):
        if settings.rows_per_microbatch % layout.batch_shards:
            raise ValueError(
                f"rows_per_microbatch {settings.rows_per_microbatch} does not divide over the mesh's {layout.batch_shards} "
                "batch shards (data x fsdp); make it a multiple"
            )
        self._config, self._layout, self._settings = config, layout, settings
        self._optimizer = make_optimizer(settings.optimizer, steps)
        self._micro_step = ScoreMicroStep(
            config,
            layout,
            pairwise_score_loss if settings.objective == "pairwise" else pointwise_score_loss,
            compute_dtype=dtype,
            remat=settings.remat,
            auxiliary=router_loss(balance=settings.router.balance),
        )
        self._apply_step = ApplyStep(config, self._optimizer, layout, bias_rate=settings.router.bias_rate)
        self._zero_grads = ZeroGrads(config, layout)

    def init_state(self, params: Any) -> TrainState:
        """The state before the first update."""
        return init_state(self._config, params, self._optimizer, self._layout)

    def abstract_state(self) -> TrainState:
        """The state's shapes, dtypes and shardings: what restoring one needs."""
        return abstract_state(self._config, self._optimizer, self._layout)

    def update(
        self, state: TrainState, judged: Sequence[Pair] | Sequence[Labelled], row_tokens: int
    ) -> tuple[TrainState, dict[str, float]]:
        """One update from its pairs or labelled responses: the state after it and its metrics; ``examples`` counts them, and
        ``padding`` is the share of the packed rows' places that hold no token. The state is donated.
        """
        rows = pack_judged(judged, row_tokens, self._settings)
        batches = micro_batches(rows, self._settings.rows_per_microbatch)
        state, metrics = make_update(state, batches, self._zero_grads, self._micro_step, self._apply_step)
        metrics["examples"] = metrics.pop("tokens")
        return state, metrics | {"padding": float(np.mean(rows.segment_ids == 0))}
