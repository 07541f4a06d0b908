"""What a rollout looked like, as numbers for the curves: the self-evolution of the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.evaluation.grading import GradedSample
from r1jax.evaluation.reflection import reflects, search_measures
from r1jax.rewards.record import Verdict


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def rollout_metrics(
    samples: Sequence[GradedSample], rows: Sequence[Mapping[str, Any]], rewards: np.ndarray, graded: np.ndarray
) -> dict[str, float]:
    """Figures of a rollout. Ungraded samples are in the lengths, and in no reward.

    Args:
      samples: all that were sampled, those of replaced groups too.
      rows: of the whole prompt set.
      rewards: ``[samples]``, mixed. graded: bool ``[samples]``.

    Returns:
      Means by name: ``reward_mean``, ``reward_<part>`` of each part that was graded, ``accuracy`` (share right of what has
      a verdict; what was cut off is wrong, as in a benchmark, though ``reward_accuracy`` is what its grader said), ``ungraded``, ``response_length_mean`` and ``_max`` in tokens, ``truncated``, ``reflection`` (share of
      completions with a reflective word), and what search problems tell besides (``evaluation.reflection``).
    """
    lengths = np.array([len(s.sequence.tokens) for s in samples])
    right = [s.right for s in samples if s.record.verdict in (Verdict.RIGHT, Verdict.WRONG)]
    figures = {
        "reward_mean": _mean(rewards[graded]),
        "ungraded": _mean(~graded),
        "response_length_mean": _mean(lengths),
        "response_length_max": float(lengths.max()),
        "truncated": _mean([s.cut_off for s in samples]),
        "reflection": _mean([reflects(s.completion) for s in samples]),
    }
    if right:  # where nothing has a verdict there is no accuracy, which is not one of 0
        figures["accuracy"] = _mean(right)
    for part in sorted({name for s in samples for name in s.record.parts}):
        values = [s.record.parts[part] for s in samples if s.record.parts.get(part) is not None]
        figures[f"reward_{part}"] = _mean(values)
    searches = [(s.completion, rows[s.row]["target"]) for s in samples if rows[s.row].get("grader") == "search"]
    found = search_measures(searches) if searches else {}
    return figures | {name: float(value) for name, value in found.items() if value is not None}
