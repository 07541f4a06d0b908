"""Learning from a teacher's scores: GRPO's learner, with ``log p_teacher - log p_student`` of each token in the place of a
reward's advantage."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax import sharding
from r1jax.config import GRPOSettings
from r1jax.data.batch import Batch
from r1jax.losses import PolicyLoss, grpo_loss, on_policy_distillation_advantages
from r1jax.losses.metrics import weighted_mean
from r1jax.models import ModelConfig
from r1jax.pipeline.grpo.learning import Learner
from r1jax.scoring import Scorer
from r1jax.training import TokenLoss, TrainState


def distillation_token_loss(loss: PolicyLoss) -> TokenLoss:
    """On-policy distillation on a batch whose ``ref_logprobs`` are the teacher's. The student that sampled is the one being
    trained, so that ``old_logprobs`` is not read.

    Besides the metrics of ``loss``: ``reverse_kl``, the estimate of ``KL(student || teacher)`` per token from the tokens that
    were sampled, in nats.
    """

    def token_loss(logprobs: jax.Array, entropy: jax.Array, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        advantages = on_policy_distillation_advantages(batch.ref_logprobs, jax.lax.stop_gradient(logprobs))
        value, metrics = grpo_loss(
            logprobs,
            None,
            advantages,
            batch.token_weight,
            sampler_logprobs=batch.sampler_logprobs,
            sequence_index=batch.sequence_index,
            entropy=entropy,
            config=loss,
        )
        return value, metrics | {"reverse_kl": -weighted_mean(advantages, jnp.asarray(batch.token_weight))}

    return token_loss


class TeacherLearner(Learner):
    """``grpo.Learner`` that asks a teacher; it is frozen, and no part of the state.

    Args:
      teacher: its configuration and its parameters, laid out as in training, in the dtype of computation.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: sharding.Layout,
        settings: GRPOSettings,
        dtype: Any,
        teacher: tuple[ModelConfig, Any],
    ):
        super().__init__(config, layout, settings, dtype)
        self._advantage_only = False  # where the host knows no advantage each sequence may have one
        teacher_config, self._teacher = teacher
        self._score_teacher = Scorer(
            teacher_config, layout, temperature=settings.temperature, compute_dtype=dtype, remat=settings.remat
        )

    def _token_loss(self, loss: PolicyLoss) -> TokenLoss:
        return distillation_token_loss(loss)

    def _scored(self, state: TrainState, batch: Batch) -> Batch:
        batch = self._layout.put(batch, ("batch", "sequence"))
        # The recorded experts are the student's.
        return batch._replace(ref_logprobs=self._score_teacher(self._teacher, batch._replace(routes=None)))
