"""Learning from examples: packing, micro-steps, updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from r1jax import sharding
from r1jax.config import SFTSettings
from r1jax.data.batch import Batch
from r1jax.data.examples import Example
from r1jax.data.packing import PackItem, micro_batches, pack
from r1jax.losses import token_weights
from r1jax.models import ModelConfig, param_shardings
from r1jax.models.precision import cast
from r1jax.pipeline.updates import make_update
from r1jax.training import (
    ApplyStep,
    LossStep,
    MicroStep,
    PredictAhead,
    TrainState,
    ZeroGrads,
    abstract_state,
    init_state,
    make_optimizer,
    router_loss,
    sft_token_loss,
)


def pack_examples(examples: Sequence[Example], row_tokens: int, settings: SFTSettings) -> Batch:
    """The packed rows of one update, ``[rows, row_tokens]``; rows are a multiple of ``rows_per_microbatch``.

    Token weights are over all of them, so that neither the packing nor the micro-batches change the loss. An example that
    comes twice in an update counts twice.
    """
    rows = _rows(examples, row_tokens, settings, settings.aggregation)
    if settings.router.balance:
        rows = rows._replace(balance_weight=token_weights(rows.segment_ids > 0, rows.sequence_index))
    return rows


def _rows(examples: Sequence[Example], row_tokens: int, settings: SFTSettings, rule: str) -> Batch:
    items = [PackItem(i, example.tokens, example.completion_start) for i, example in enumerate(examples)]
    rows = pack(items, row_tokens, settings.rows_per_microbatch)
    weights = token_weights(rows.completion_mask, rows.sequence_index, rule=rule, length=settings.max_tokens)
    return rows._replace(token_weight=weights)


class Learner:
    """The compiled programs of an SFT stage.

    Args:
      config: of the model.
      layout: the training layout.
      settings: of the stage.
      steps: updates of the whole stage, where the schedule ends.
      dtype: of computation.

    Attributes:
      held_out_step: ``training.LossStep``, for micro-batches of ``held_out_batches``.

    Raises:
      ValueError: rows that do not divide over the mesh; ``mtp_coefficient`` for a model without multi-token prediction.
    """

    def __init__(self, config: ModelConfig, layout: sharding.Layout, settings: SFTSettings, steps: int, dtype: Any):
        if settings.rows_per_microbatch % layout.batch_shards:
            raise ValueError(
                f"rows_per_microbatch {settings.rows_per_microbatch} does not divide over the mesh's {layout.batch_shards} "
                "batch shards (data x fsdp); make it a multiple"
            )
        self._config, self._layout, self._settings = config, layout, settings
        held = () if settings.mtp_coefficient else ("mtp",)
        self._optimizer = make_optimizer(settings.optimizer, steps, held=held)
        self._micro_step = MicroStep(
            config,
            layout,
            sft_token_loss,
            compute_dtype=dtype,
            remat=settings.remat,
            auxiliary=router_loss(balance=settings.router.balance),
            ahead=PredictAhead(settings.mtp_coefficient) if settings.mtp_coefficient else None,
        )
        self._apply_step = ApplyStep(config, self._optimizer, layout, bias_rate=settings.router.bias_rate)
        self.held_out_step = LossStep(config, layout, sft_token_loss, compute_dtype=dtype)
        self._zero_grads = ZeroGrads(config, layout)
        decode = sharding.layout(layout.mesh, sharding.ROLLOUT_RULES)
        self._to_rollout = jax.jit(lambda params: cast(params, dtype), out_shardings=param_shardings(config, decode))

    def init_state(self, params: Any) -> TrainState:
        """The state before the first update."""
        return init_state(self._config, params, self._optimizer, self._layout)

    def abstract_state(self) -> TrainState:
        """The state's shapes, dtypes and shardings: what restoring one needs."""
        return abstract_state(self._config, self._optimizer, self._layout)

    def rollout_params(self, state: TrainState) -> Any:
        """The model as the sampler takes it: cast first, then laid out for decoding."""
        return self._to_rollout(state.params)

    def held_out_batches(self, examples: Sequence[Example], row_tokens: int) -> list[Batch]:
        """Examples to be measured, packed as an update's: micro-batches whose token weights are one over the number of all
        their completion tokens."""
        rows = _rows(examples, row_tokens, self._settings, "token_mean")
        return list(micro_batches(rows, self._settings.rows_per_microbatch))

    def update(self, state: TrainState, examples: Sequence[Example], row_tokens: int) -> tuple[TrainState, dict[str, float]]:
        """One update from its examples: the state after it and its metrics, ``padding`` among them, the share of the packed
        rows' places that hold no token. The state is donated.
        """
        rows = pack_examples(examples, row_tokens, self._settings)
        batches = micro_batches(rows, self._settings.rows_per_microbatch)
        state, metrics = make_update(state, batches, self._zero_grads, self._micro_step, self._apply_step)
        return state, metrics | {"padding": float(np.mean(rows.segment_ids == 0))}
