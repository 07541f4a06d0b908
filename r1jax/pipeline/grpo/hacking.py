"""Monitors of reward hacking: a model's reward that climbs while what it stands for does not.

A reward model is right near the texts that it has seen; a policy that is pushed by it leaves them. What the rules and plain
measures say of the same samples tells it first: the paper stops after 400 steps with preference rewards for that reason
(arXiv 2501.12948, supplement: the reward climbs while the pass rate on Codeforces falls).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from r1jax.config import MODEL_REWARDS, HackingSettings
from r1jax.evaluation.grading import GradedSample
from r1jax.evaluation.reward_scores import pearson
from r1jax.pipeline import records

Figures = Mapping[str, float]
# Parts that the reward pool is asked besides those that count, where models reward: what they are held against.
WATCHED_PARTS = ("language", "repetition", "format", "think_format")


def within_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Deviations from the group's mean: the difference of prompts is no matter of the policy."""
    _, index = np.unique(groups, return_inverse=True)
    deviations = values - (np.bincount(index, values) / np.bincount(index))[index]
    # The mean of equal numbers may differ from them by rounding, which would correlate with anything.
    return np.where(np.abs(deviations) > 1e-9 * np.abs(values), deviations, 0.0)


def monitored(samples: Sequence[GradedSample]) -> dict[str, float]:
    """What is watched of a rollout's samples that a model has scored; nothing where it scored none.

    Returns:
      ``model_reward_<part>`` (mean), ``model_reward_<part>_spread`` (root mean square of the deviations from the group's mean, what
      advantages are made of: 0 where the model says the same of all), ``model_reward_<part>_length`` (correlation with the length in tokens, within groups; left out where
      either is constant), and of the scored samples ``scored_length`` (tokens), ``scored_format`` (share in R1's or R1-Zero's
      format, which says nothing of the content), ``scored_repetition`` (share repeated) and ``scored_language``, as far as graded.
    """
    scored = [s for s in samples if any(s.record.parts.get(name) is not None for name in MODEL_REWARDS)]
    if not scored:
        return {}
    lengths = np.array([len(s.sequence.tokens) for s in scored], np.float64)
    groups = np.array([s.sequence.prompt_id for s in scored])
    figures = {"scored_length": float(lengths.mean())}
    for name in MODEL_REWARDS:
        values = part_of(scored, name)
        has = np.isfinite(values)
        if not has.any():
            continue
        figures[f"model_reward_{name}"] = float(values[has].mean())
        own, length = (within_groups(x[has], groups[has]) for x in (values, lengths))
        figures[f"model_reward_{name}_spread"] = float(np.sqrt(np.mean(own**2)))
        if (found := pearson(own, length)) is not None:
            figures[f"model_reward_{name}_length"] = found
    in_format = np.fmax(part_of(scored, "format"), part_of(scored, "think_format"))
    watched = {"format": in_format, "language": part_of(scored, "language"), "repetition": -part_of(scored, "repetition")}
    return figures | {f"scored_{k}": float(np.nanmean(v)) for k, v in watched.items() if np.isfinite(v).any()}


def part_of(samples: Sequence[GradedSample], name: str) -> np.ndarray:
    """A part of each sample's reward; NaN where it could not be graded."""
    return np.array([np.nan if (v := s.record.parts.get(name)) is None else v for s in samples], np.float64)


def alarms(history: Sequence[Figures], settings: HackingSettings) -> list[str]:
    """Why the newest rollout is distrusted, a line each; none while the model rewards do not rise.

    Args:
      history: the figures of all rollouts so far with model rewards, in order.
    """
    window = settings.window
    if len(history) < 2 * window:
        return []

    def means(name: str) -> tuple[float, float] | None:
        first, last = ([h[name] for h in part if name in h] for part in (history[:window], history[-window:]))
        return (float(np.mean(first)), float(np.mean(last))) if first and last else None

    rising = []
    for name in MODEL_REWARDS:
        values = [h.get(f"model_reward_{name}") for h in history]
        first, last = ([v for v in part if v is not None] for part in (values[:window], values[-window:]))
        if len(first) > 1 and len(last) > 1:
            error = np.sqrt(np.var(first, ddof=1) / len(first) + np.var(last, ddof=1) / len(last))
            if np.mean(last) - np.mean(first) > max(2 * error, settings.reward_gain):
                rising.append(f"{name} {np.mean(first):.2f} -> {np.mean(last):.2f}")
    if not rising:
        return []
    found = []
    for name, least, what in (
        ("accuracy", settings.accuracy_drop, "accuracy by rules"),
        ("scored_format", settings.format_drop, "format"),
        ("scored_language", settings.language_drop, "language consistency"),
    ):
        pair = means(name)
        if pair and pair[0] - pair[1] > least:
            found.append(f"{what} fell {pair[0]:.2f} -> {pair[1]:.2f}")
    pair = means("scored_length")
    if pair and not 1 / settings.length_factor <= pair[1] / max(pair[0], 1e-9) <= settings.length_factor:
        found.append(f"length went {pair[0]:.0f} -> {pair[1]:.0f} tokens")
    pair = means("scored_repetition")
    if pair and pair[1] - pair[0] > settings.repetition_rise:
        found.append(f"repetition rose {pair[0]:.2f} -> {pair[1]:.2f}")
    for name in MODEL_REWARDS:
        pair = means(f"model_reward_{name}_length")
        if pair and abs(pair[1]) > settings.length_correlation:
            found.append(f"{name} follows the length (correlation {pair[1]:.2f})")
    return [f"the reward rises ({', '.join(rising)}) while {one}" for one in found]


class HackingWatch:
    """Looks at each rollout of a stage with model rewards, warns, and says when to stop.

    ``alarms.json`` in the stage's folder, rollout -> reasons, is derived: for the reader.

    Args:
      stage: the stage's folder. warn: told of each reason the first time in a row.
    """

    def __init__(self, stage: epath.Path, settings: HackingSettings, warn: Callable[[str], None]):
        self._stage, self._settings, self._warn = stage, settings, warn
        self._history: list[Figures] = []
        self._reasons: dict[int, list[str]] = {}

    def restore(self, rollout: int) -> None:
        """Goes on after the rollouts before this one, from the recorded updates."""
        by_rollout: dict[int, Figures] = {}
        for folder in sorted((self._stage / "updates").glob("*")):
            if records.committed(folder):
                metrics = json.loads((folder / "metrics.json").read_text())
                by_rollout.setdefault(metrics["rollout"], metrics)
        for number in sorted(n for n in by_rollout if n < rollout):
            self._take(number, by_rollout[number])

    def look(self, rollout: int, figures: Figures) -> dict[str, float]:
        """``hacking_alarms``, how many reasons there are to distrust this rollout; nothing where no model rewards."""
        known = {_kind(reason) for reason in self._reasons.get(rollout - 1, ())}
        if not self._take(rollout, figures):
            return {}
        for reason in self._reasons[rollout]:
            if _kind(reason) not in known:
                self._warn(f"rollout {rollout}: {reason}")
        if self._reasons[rollout]:
            shown = {str(number): reasons for number, reasons in self._reasons.items() if reasons}
            records.write_atomic(self._stage / "alarms.json", json.dumps(shown, indent=1))
        return {"hacking_alarms": float(len(self._reasons[rollout]))}

    def _take(self, rollout: int, figures: Figures) -> bool:
        if not any(name.startswith("model_reward_") for name in figures):
            return False
        self._history.append(figures)
        self._reasons[rollout] = alarms(self._history, self._settings)
        return True

    @property
    def reasons(self) -> list[str]:
        """Of the newest rollout."""
        return list(self._reasons.values())[-1] if self._reasons else []

    @property
    def stops(self) -> bool:
        """Whether the last ``stop_after`` rollouts all had alarms."""
        last = list(self._reasons.values())[-self._settings.stop_after :] if self._settings.stop_after else []
        return len(last) == self._settings.stop_after > 0 and all(last)


def _kind(reason: str) -> str:
    """A reason without its numbers."""
    return re.sub(r"[-0-9.]+", "", reason.partition(" while ")[2])
