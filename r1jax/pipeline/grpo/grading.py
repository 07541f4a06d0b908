"""What is said of a rollout's rewards: of what could not be graded, and of a model's reward that teaches nothing or drowns the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from r1jax.config import WorkerSettings
from r1jax.evaluation.grading import GradedSample
from r1jax.pipeline.grpo.hacking import part_of, within_groups
from r1jax.pipeline.grpo.model_rewards import REWARD_MODELS
from r1jax.rewards.mixing import weights_of_type
from r1jax.rewards.record import common_failure
from r1jax.scoring.reward_model import NO_SUMMARY

FEW_TEXTS = 8  # of fewer it is no wonder that they have one score
# A part that differs by so many times more than all others of its prompts could, each of them from 0 to 1, leaves them nothing to say.
DROWNS = 100.0

Weights = Mapping[str, Mapping[str, float]]


class GradingWatch:
    """Looks at the rewards of each rollout of a stage. What it warns of it says once in a session.

    Args:
      waves: the folder of the stage's waves, named in errors.
      models: part -> path of the model that gives it.
      weights: type of prompt -> part -> weight.
    """

    def __init__(
        self,
        waves: epath.Path,
        settings: WorkerSettings,
        models: Mapping[str, str],
        weights: Weights,
        warn: Callable[[str], None],
    ):
        self._waves, self._settings, self._models, self._weights = waves, settings, models, weights
        self._warn = warn
        self._told: set[tuple[str, str]] = set()

    def look(self, rollout: int, samples: Sequence[GradedSample], types: Sequence[str], graded: np.ndarray) -> None:
        """Warns of a rollout's rewards.

        Args:
          types: of each sample's prompt. graded: bool ``[samples]``.

        Raises:
          RuntimeError: too many could not be graded.
        """
        self._ungraded(rollout, samples, types, graded)
        for part in REWARD_MODELS:
            lacking = f"reward {part}: {NO_SUMMARY}"
            scored = [s for s in samples if s.record.parts.get(part) is not None and lacking not in s.record.reason]
            texts = {(sample.row, sample.completion) for sample in scored}
            values = {sample.record.parts[part] for sample in scored}
            if len(texts) >= FEW_TEXTS and len(values) == 1:
                say = f"has 1 score for {len(texts)} different answers"
                self._once(part, "constant", f"rollout {rollout}: {self._name(part)} {say}; nothing is learnt from it")
        for type_ in dict.fromkeys(types):
            self._drowned(rollout, [s for s, own in zip(samples, types) if own == type_], type_)

    def _drowned(self, rollout: int, samples: Sequence[GradedSample], type_: str) -> None:
        weights = {name: abs(weight) for name, weight in self._weights[type_].items() if weight}
        groups = np.array([sample.sequence.prompt_id for sample in samples])
        spread = {name: weight * _spread(part_of(samples, name), groups) for name, weight in weights.items()}
        for part in weights.keys() & set(REWARD_MODELS):
            others = sum(max(weights[name], spread[name]) for name in weights if name != part)
            if others and spread[part] > DROWNS * others:
                self._once(
                    part,
                    "drowns",
                    f"rollout {rollout}: {self._name(part)} differs by {spread[part]:.2g} among the samples of a prompt, beside "
                    f"which the other rewards of {type_} prompts, {others:.2g} together, count for nothing; lower its weight",
                )

    def _ungraded(self, rollout: int, samples: Sequence[GradedSample], types: Sequence[str], graded: np.ndarray) -> None:
        share, settings = float(np.mean(~graded)), self._settings
        if share <= settings.warn_ungraded:
            return
        what = f"{share:.0%} of rollout {rollout} could not be graded"
        why = self._why([(s, t) for s, t, has in zip(samples, types, graded) if not has])
        if share > settings.stop_ungraded:
            raise RuntimeError(
                f"{what}, over workers.stop_ungraded {settings.stop_ungraded:.0%}: {why}; the reasons are in {self._waves}. "
                "Raise workers.stop_ungraded to go on without those samples; or mend what grades and take another --workdir, "
                "since what is recorded is never graded again"
            )
        self._warn(f"{what}: {why}")

    def _why(self, ungraded: Sequence[tuple[GradedSample, str]]) -> str:
        """``helpfulness (MODEL) 15, such as: reward helpfulness: the model gave inf``."""
        parts: Counter[str] = Counter()
        for sample, type_ in ungraded:
            needed = (name for name, weight in weights_of_type(type_, self._weights).items() if weight)
            parts.update(name for name in needed if sample.record.parts.get(name) is None)
        reason = common_failure(sample.record for sample, _ in ungraded)
        told = ", ".join(f"{self._name(name)} {count}" for name, count in parts.most_common())
        return told + (f", such as: {reason:.200}" if reason else "")

    def _name(self, part: str) -> str:
        return f"reward {part}" + (f" ({self._models[part]})" if part in self._models else "")

    def _once(self, part: str, what: str, text: str) -> None:
        if (part, what) not in self._told:
            self._told.add((part, what))
            self._warn(text)


def _spread(values: np.ndarray, groups: np.ndarray) -> float:
    """Root mean square of the deviations from a group's mean, of what is graded."""
    has = np.isfinite(values)
    return float(np.sqrt(np.mean(within_groups(values[has], groups[has]) ** 2))) if has.any() else 0.0
