"""Monitors of reward hacking: a model's reward that climbs while what it stands for does not.

A reward model is right near the texts that it has seen; a policy that is pushed by it leaves them. What the rules and plain
measures say of the same samples tells it first: the paper stops after 400 steps with preference rewards for that reason
(arXiv 2501.12948, supplement: the reward climbs while the pass rate on Codeforces falls).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from r1jax.config import MODEL_REWARDS, HackingSettings
from r1jax.evaluation.grading import GradedSample
from r1jax.evaluation.reward_scores import pearson
from r1jax.pipeline import records

Figures = Mapping[str, float]
# Parts that the reward pool is asked besides those that count, where models reward: what they are held against.
WATCHED_PARTS = ("language", "repetition", "format", "think_format")
# So many standard deviations, told by a window of rollouts, may a single one be off by chance: one in a thousand is by more with the
# default window of 5, one in a hundred with 3 (Student's t of 4 and 2 degrees of freedom).
UNLUCKY = 7.0


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


@dataclass(frozen=True)
class _Change:
    """A figure's mean at the beginning and over the newest rollouts. ``chance``: how much of the difference may be noise."""

    first: float
    last: float
    chance: float


def _change(beginning: Sequence[Figures], newest: Sequence[Figures], name: str) -> _Change | None:
    """Of a figure between rollouts of the beginning, one or several, and the newest; None where either has too few of it."""
    first, last = ([h[name] for h in part if name in h] for part in (beginning, newest))
    if not first or len(last) < 2 or (len(beginning) > 1 and len(first) < 2):
        return None
    noise = np.var(last, ddof=1)
    if len(beginning) > 1:
        chance = 2 * np.sqrt(np.var(first, ddof=1) / len(first) + noise / len(last))
    else:  # one rollout says nothing of its own noise
        chance = UNLUCKY * np.sqrt(noise * (1 + 1 / len(last)))
    return _Change(float(np.mean(first)), float(np.mean(last)), float(chance))


def alarms(history: Sequence[Figures], settings: HackingSettings) -> list[str]:
    """Why the newest rollout is distrusted, a line each; none while the model rewards do not rise.

    Held against the first window; and, where that tells nothing, against the first rollout alone, whose policy no reward of a model has
    moved yet: a hack that is found within the first window is in its mean already, and its jump would pass for noise. That it was
    found so early the second window must say: held against one rollout at every look, some measure of a long run that is sound
    would fall short of it by chance.

    Args:
      history: the figures of all rollouts so far with model rewards, in order.
    """
    window = settings.window
    if len(history) < 2 * window:
        return []
    newest = history[-window:]
    if found := _against(history[:window], newest, settings):
        return found
    early = {_kind(reason) for reason in _against(history[:1], history[window : 2 * window], settings)}
    return [reason for reason in _against(history[:1], newest, settings) if _kind(reason) in early]


def _against(beginning: Sequence[Figures], newest: Sequence[Figures], settings: HackingSettings) -> list[str]:
    """The alarms of the newest rollouts against those of the beginning."""

    def change(name: str) -> _Change | None:
        return _change(beginning, newest, name)

    rewards = {name: found for name in MODEL_REWARDS if (found := change(f"model_reward_{name}"))}
    rising = [
        f"{name} {of.first:.2f} -> {of.last:.2f}"
        for name, of in rewards.items()
        if of.last - of.first > max(of.chance, settings.reward_gain)
    ]
    if not rising:
        return []

    def worse(name: str, least: float, sign: int) -> _Change | None:
        """The change of a measure that has grown, or with sign -1 fallen, by more than ``least``."""
        of = change(name)
        if of is None:
            return None
        bound = least if len(beginning) > 1 else max(least, of.chance)
        return of if sign * (of.last - of.first) > bound else None

    found = []
    for name, least, what in (
        ("accuracy", settings.accuracy_drop, "accuracy by rules"),
        ("scored_format", settings.format_drop, "format"),
        ("scored_language", settings.language_drop, "language consistency"),
    ):
        if of := worse(name, least, -1):
            found.append(f"{what} fell {of.first:.2f} -> {of.last:.2f}")
    for sign in (1, -1):
        of, factor = worse("scored_length", 0.0, sign), settings.length_factor
        if of and not 1 / factor <= of.last / max(of.first, 1e-9) <= factor:
            found.append(f"length went {of.first:.0f} -> {of.last:.0f} tokens")
    if of := worse("scored_repetition", settings.repetition_rise, 1):
        found.append(f"repetition rose {of.first:.2f} -> {of.last:.2f}")
    for name in MODEL_REWARDS:
        of = change(f"model_reward_{name}_length")
        if of and abs(of.last) > settings.length_correlation:
            found.append(f"{name} follows the length (correlation {of.last:.2f})")
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
