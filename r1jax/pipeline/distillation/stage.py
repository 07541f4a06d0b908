"""On-policy distillation: the student samples, the teacher scores its tokens, the student moves towards what the teacher finds
likelier. Teacher and student share a tokenizer; a student with another one learns a teacher's text (``kind: sft``).

Rollouts, waves, checkpoints and resuming are GRPO's, with one update to a rollout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from r1jax import checkpoint, config, data
from r1jax.models import ModelConfig
from r1jax.pipeline.collection import Rollout
from r1jax.pipeline.distillation.learning import TeacherLearner
from r1jax.pipeline.grpo.checks import check_settings
from r1jax.pipeline.grpo.metrics import rollout_metrics
from r1jax.pipeline.grpo.stage import GRPORun, GRPOStage
from r1jax.pipeline.stage import Context
from r1jax.rewards import RewardPool
from r1jax.rewards.mixing import mix


def as_grpo(settings: config.OnPolicyDistillationSettings) -> config.GRPOSettings:
    """GRPO's settings: the plain policy gradient, one update to a rollout; a grader is asked for the curve of accuracy."""
    own = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return config.GRPOSettings(
        **own,
        minibatches=1,
        epochs=1,
        rewards={"accuracy": 1.0},
        reference_every=0,
        loss=config.LossSettings(surrogate="none", kl="none", kl_coefficient=0.0),
    )


def check_same_vocabulary(student: data.Tokenizer, teacher: data.Tokenizer) -> None:
    """Refuses a teacher whose ids mean other tokens: its scores would be of another text.

    Raises:
      ValueError: names the first id that differs, and the remedy.
    """
    for number in range(max(student.vocab_size, teacher.vocab_size)):
        ours, theirs = student.token(number), teacher.token(number)
        if ours != theirs:
            raise ValueError(
                f"teacher and student have different tokenizers: id {number} is {theirs!r} in {teacher.source} and {ours!r} in "
                f"{student.source}. A teacher scores the student's tokens; let this student learn the teacher's text instead "
                "(kind: sft)"
            )


def check_teacher(student: str, teacher: str) -> ModelConfig:
    """The teacher's configuration, once both models are known to read the same tokens.

    Raises:
      ValueError: they do not, or one has no tokenizer.
    """
    tokenizers = []
    for path in (student, teacher):
        tokenizers.append(checkpoint.load_tokenizer(path))
        if tokenizers[-1] is None:
            raise ValueError(f"{path} has no tokenizer; whether teacher and student share one can't be told")
    check_same_vocabulary(*tokenizers)
    ours, theirs = checkpoint.read_config(student), checkpoint.read_config(teacher)
    if theirs.vocab_size < ours.vocab_size:
        raise ValueError(
            f"the student's head has {ours.vocab_size} rows, the teacher's {theirs.vocab_size}: it can't score each token that "
            "the student may sample; choose another teacher"
        )
    return theirs


class OnPolicyDistillationStage(GRPOStage):
    """``kind: on_policy_distillation``. Inputs: ``model`` (the student), ``teacher``, ``data`` (a prompt set; its ``grader``
    may be ``none``)."""

    settings = config.OnPolicyDistillationSettings

    def __init__(self, name: str, settings: config.OnPolicyDistillationSettings):
        if settings.samples_per_prompt < 1:
            raise config.RecipeError(
                f"stages.{name}.samples_per_prompt must be at least 1, not {settings.samples_per_prompt}"
            )
        grpo = as_grpo(settings)
        # No advantage is against the rest of a group: one sample of a prompt will do.
        check_settings(name, dataclasses.replace(grpo, samples_per_prompt=max(2, settings.samples_per_prompt)))
        self.name, self._settings = name, grpo

    def _check_rows(self, source: config.DataSource) -> None:
        """Nothing is rewarded: any row will do."""

    def session(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context, pool: RewardPool) -> GRPORun:
        teacher = check_teacher(inputs["model"], inputs["teacher"])
        return _Run(teacher, self.name, self._settings, inputs, workdir, context, pool)


class _Run(GRPORun):
    """One session."""

    progress = {"reverse KL": "reverse_kl", "length": "response_length_mean"}

    def __init__(self, teacher: ModelConfig, *rest: Any):
        self.teacher = teacher
        super().__init__(*rest)

    def make_learner(self, dtype: Any) -> TeacherLearner:
        teacher, layout = self.teacher, self.context.layout
        longest = self.longest_prompt + self.settings.max_tokens
        if longest > teacher.max_position_embeddings:
            raise config.RecipeError(
                f"stages.{self.name}: the longest prompt ({self.longest_prompt}) and max_tokens need {longest} tokens, the "
                f"teacher's max_position_embeddings is {teacher.max_position_embeddings}; lower max_tokens"
            )
        params = checkpoint.load_model(self.inputs["teacher"], layout.mesh, dtype).params
        return TeacherLearner(self.model_config, layout, self.settings, dtype, (teacher, params))

    def judge(self, collected: Rollout) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        sampled = collected.all_samples
        rewards, graded = mix([sample.record for sample in sampled], self.settings.rewards)
        figures = rollout_metrics(sampled, [prompt.row for prompt in self.prompts], rewards, graded)
        del figures["reward_mean"]  # nothing is rewarded
        shape = len(collected.groups), self.settings.samples_per_prompt
        return figures, np.zeros(shape, np.float32), np.ones(shape[0] * shape[1], bool)
