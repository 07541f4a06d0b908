"""Two models on the same problems: the mean of the differences by problem, with a paired interval.

A problem that is hard is hard for both, so that the difference of two models is known better than either of their figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from r1jax.evaluation.estimators import bootstrap_interval
from r1jax.evaluation.reflection import reflects

ProblemMeans = dict[str, dict[tuple[str, str], float]]


def problem_means(samples: Iterable[Mapping[str, Any]]) -> ProblemMeans:
    """Figure -> problem -> the mean over the problem's samples.

    A problem is known by its id and its text, so that the same one may be asked by another template.

    Args:
      samples: lines of an evaluation's ``samples.jsonl``.

    Returns:
      ``pass@1``, ``mean_tokens``, ``truncated``, ``reflection``, and ``part NAME`` for each reward part but accuracy, of the samples that it
      could grade.
    """
    values: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        problem = (str(sample["id"]), sample["problem"])
        values["pass@1"][problem].append(float(sample["right"]))
        values["mean_tokens"][problem].append(float(sample["tokens"]))
        values["truncated"][problem].append(float(sample["finish_reason"] == "length"))
        values["reflection"][problem].append(float(reflects(sample["completion"])))
        for part, value in sample["parts"].items():
            if value is not None and part != "accuracy":
                values[f"part {part}"][problem].append(float(value))
    return {figure: {p: float(np.mean(v)) for p, v in by_problem.items()} for figure, by_problem in values.items()}


def paired_differences(of: ProblemMeans, against: ProblemMeans) -> dict[str, dict[str, Any]]:
    """Each figure that both have, over the problems that both answered.

    Returns:
      figure -> ``problems``, ``of`` and ``against`` (means over those problems), ``difference`` and its 95% ``interval``, resampled
      by problem (``bootstrap_interval``), rows of the same text together. Nothing where no problem is common to both.
    """
    compared = {}
    for figure in (name for name in of if name in against):
        problems = [problem for problem in of[figure] if problem in against[figure]]
        if not problems:
            continue
        first, second = (np.array([side[figure][problem] for problem in problems]) for side in (of, against))
        compared[figure] = {
            "problems": len(problems),
            "of": float(first.mean()),
            "against": float(second.mean()),
            "difference": float((first - second).mean()),
            "interval": list(bootstrap_interval(first - second, problems=[text for _, text in problems])),
        }
    return compared
