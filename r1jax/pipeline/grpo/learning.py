"""Learning from a rollout: minibatches, packing, scoring, micro-steps, updates.

Advantages come with the sequences, computed over the whole rollout before it is split. Each minibatch is packed into rows
once; scoring and every epoch's micro-steps read those rows, so that the first ratio after a rollout is exactly 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from r1jax import sharding
from r1jax.config import GRPOSettings
from r1jax.data.batch import Batch
from r1jax.data.packing import PackItem, micro_batches, pack, spread
from r1jax.losses import PolicyLoss, token_weights
from r1jax.models import ModelConfig, param_shardings
from r1jax.models.precision import cast
from r1jax.pipeline.grpo.objective import policy_loss
from r1jax.pipeline.updates import make_update
from r1jax.rollout.wave import SampledSequence
from r1jax.scoring import Scorer
from r1jax.training import (
    ApplyStep,
    MicroStep,
    PredictAhead,
    TokenLoss,
    TrainState,
    ZeroGrads,
    abstract_state,
    copy_params,
    grpo_token_loss,
    init_state,
    make_optimizer,
    router_loss,
)


def sequence_weights(lengths: np.ndarray, include: np.ndarray, rule: str, max_tokens: int) -> np.ndarray:
    """The token weight of each sequence's completion tokens, from one minibatch's lengths ``[sequences]`` alone.

    Sequences that are not packed because they can't have a gradient still count: leaving them out changes no weight.
    """
    index = np.repeat(np.arange(len(lengths)), lengths)[None]
    weights = token_weights(np.ones(index.shape, np.float32), index, rule=rule, length=max_tokens, include=include)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return weights[0, first]


class Learner:
    """The compiled programs of a GRPO stage, and how a rollout goes through them.

    Args:
      config: of the model.
      layout: the training layout.
      settings: of the stage.
      dtype: of computation.
    """

    def __init__(self, config: ModelConfig, layout: sharding.Layout, settings: GRPOSettings, dtype: Any):
        if settings.rows_per_microbatch % layout.batch_shards:
            raise ValueError(
                f"rows_per_microbatch {settings.rows_per_microbatch} does not divide over the mesh's {layout.batch_shards} "
                "batch shards (data x fsdp); make it a multiple"
            )
        self._config, self._layout, self._settings, self._dtype = config, layout, settings, dtype
        loss = policy_loss(settings.loss)
        self.needs_reference = loss.needs_reference
        router = settings.router
        beside = (loss.needs_reference, loss.entropy_coefficient, router.balance, router.bias_rate, settings.mtp_coefficient)
        self._advantage_only = not any(beside)  # nothing but advantages moves the model
        # Where one update follows a rollout the policy has not moved, and the loss's own pass gives the old
        # log-probabilities.
        self._on_policy = settings.minibatches * settings.epochs == 1
        passes = {"temperature": settings.temperature, "compute_dtype": dtype, "remat": settings.remat}
        held = () if settings.mtp_coefficient else ("mtp",)
        self._optimizer = make_optimizer(settings.optimizer, settings.steps, held=held)
        self._score = Scorer(config, layout, **passes)
        self._micro_step = MicroStep(
            config,
            layout,
            self._token_loss(loss),
            auxiliary=router_loss(balance=router.balance, replayed=router.replay),
            ahead=PredictAhead(settings.mtp_coefficient, alone=True) if settings.mtp_coefficient else None,
            replay=router.replay,
            **passes,
        )
        self._apply_step = ApplyStep(config, self._optimizer, layout, bias_rate=router.bias_rate)
        self._zero_grads = ZeroGrads(config, layout)
        decode = sharding.layout(layout.mesh, sharding.ROLLOUT_RULES)
        self._to_rollout = jax.jit(lambda params: cast(params, dtype), out_shardings=param_shardings(config, decode))
        self._to_reference = jax.jit(lambda p: copy_params(p, dtype), out_shardings=param_shardings(config, layout))

    def _token_loss(self, loss: PolicyLoss) -> TokenLoss:
        return grpo_token_loss(loss, on_policy=self._on_policy)

    # ------------------------------------------------------------------------------------------ the state
    def init_state(self, params: Any, reference: Any = None) -> TrainState:
        """The state before the first update. ``reference``: of another model; None: the initial policy."""
        if self.needs_reference:
            reference = self._to_reference(params if reference is None else reference)
        return init_state(self._config, params, self._optimizer, self._layout, reference=reference)

    def abstract_state(self) -> TrainState:
        """The state's shapes, dtypes and shardings: what restoring one needs."""
        reference = self._dtype if self.needs_reference else None
        return abstract_state(self._config, self._optimizer, self._layout, reference)

    def refresh_reference(self, state: TrainState) -> TrainState:
        """The state whose reference is its policy."""
        return state._replace(reference=self._to_reference(state.params))

    def rollout_params(self, state: TrainState) -> Any:
        """The policy as the sampler takes it: cast first, then laid out for decoding."""
        return self._to_rollout(state.params)

    # ------------------------------------------------------------------------------------------ a rollout
    def learn(
        self,
        state: TrainState,
        sequences: Sequence[SampledSequence],
        advantages: np.ndarray,
        included: np.ndarray,
        max_tokens: int,
        row_tokens: int,
        rng: np.random.Generator,
        seconds: dict[str, float],
    ) -> Iterator[tuple[TrainState, dict[str, float]]]:
        """Makes the updates of a rollout: random minibatches, so many epochs over them.

        Args:
          sequences: of the whole rollout.
          advantages: float32 ``[sequences]``. included: bool ``[sequences]``; the others take no part.
          max_tokens: the length cap, for the aggregation rule that reads it.
          row_tokens: length of a packed row.
          rng: of this rollout's splits.
          seconds: ``score_s`` and ``update_s`` are added to it.

        Yields:
          The state and the metrics after each update.
        """
        started = time.monotonic()
        split = np.array_split(rng.permutation(len(sequences)), self._settings.minibatches)
        minibatches = [self._pack(sequences, advantages, included, part, max_tokens, row_tokens) for part in split]
        minibatches = [[self._scored(state, batch) for batch in parts] for parts in minibatches]
        jax.block_until_ready(minibatches)
        seconds["score_s"] = time.monotonic() - started
        for epoch in range(self._settings.epochs):
            for number in rng.permutation(len(minibatches)) if epoch else range(len(minibatches)):
                started = time.monotonic()
                state, metrics = make_update(
                    state, minibatches[number], self._zero_grads, self._micro_step, self._apply_step
                )
                seconds["update_s"] = seconds.get("update_s", 0.0) + time.monotonic() - started
                yield state, metrics

    def _pack(self, sequences, advantages, included, chosen, max_tokens, row_tokens) -> list[Batch]:
        """The micro-batches of one minibatch. Sequences that move nothing are left out: those of advantage 0 where no KL penalty,
        entropy bonus or balance loss acts, no selection bias follows the load, and no module of prediction learns."""
        lengths = np.array([len(sequences[i].tokens) for i in chosen])
        weights = np.zeros(len(sequences), np.float32)
        weights[chosen] = sequence_weights(lengths, included[chosen], self._settings.aggregation, max_tokens)
        items = [
            PackItem(
                index=int(i),
                tokens=np.concatenate([sequences[i].prompt_tokens, sequences[i].tokens]),
                completion_start=len(sequences[i].prompt_tokens),
                values={"advantages": advantages[i], "sampler_logprobs": sequences[i].logprobs},
                routes=sequences[i].routes,
            )
            for i in sorted(chosen)
            if included[i] and (advantages[i] != 0 or not self._advantage_only)
        ]
        rows = pack(items, row_tokens, self._settings.rows_per_microbatch)
        rows = rows._replace(token_weight=spread(rows, weights))
        if self._settings.router.balance:
            rows = rows._replace(balance_weight=token_weights(rows.segment_ids > 0, rows.sequence_index))
        return list(micro_batches(rows, self._settings.rows_per_microbatch))

    def _scored(self, state: TrainState, batch: Batch) -> Batch:
        """The batch on the mesh, with the log-probabilities that the loss reads."""
        batch = self._layout.put(batch, ("batch", "sequence"))
        scored = batch if self._settings.router.replay else batch._replace(routes=None)
        if not self._on_policy:
            batch = batch._replace(old_logprobs=self._score(state.params, scored))
        if self.needs_reference:
            batch = batch._replace(ref_logprobs=self._score(state.reference, scored))
        return batch
