"""A reward model on held-out data: its scores, and the figures that they come to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax.data.preferences import Labelled, Pair
from r1jax.evaluation.reward_scores import pairwise_figures, pointwise_figures
from r1jax.pipeline import records
from r1jax.scoring.sequences import SequenceScorer

SCORES = "scores.json"


class Measure:
    """Pairs or labelled responses that a model's scores are measured on.

    Args:
      judged: all of one kind.
      scorer: compiled for the model's layout, of sequences as long as these.
    """

    def __init__(self, judged: Sequence[Pair] | Sequence[Labelled], scorer: SequenceScorer):
        self._judged, self._scorer = judged, scorer
        self._sequences = [sequence for each in judged for sequence in each.sequences]

    def scores(self, params: Any) -> np.ndarray:
        """Of every response, float32 ``[responses]``: of pairs the chosen one's, then the rejected one's."""
        return self._scorer(params, [sequence.tokens for sequence in self._sequences])

    def figures(self, scores: np.ndarray) -> dict[str, Any]:
        """See ``evaluation.reward_scores``; ``lowest`` is the lowest score."""
        lengths = np.array([sequence.learnt for sequence in self._sequences])
        firsts = [each.sequences[0] for each in self._judged]
        prompts = [tuple(each.tokens[: len(each.tokens) - each.learnt]) for each in firsts]
        if isinstance(self._judged[0], Pair):
            found = pairwise_figures(scores[::2], scores[1::2], lengths[::2], lengths[1::2], prompts)
        else:
            found = pointwise_figures(scores, np.array([each.label for each in self._judged]), lengths, prompts)
        return found | {"lowest": float(scores.min())}


def write_measurement(folder: epath.Path, figures: dict[str, Any], scores: np.ndarray) -> None:
    """Leaves a measurement on disk, its record last.

    Raises:
      FloatingPointError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise FloatingPointError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite ({folder.name})"
        )
    records.write_atomic(folder / "figures.json", json.dumps(figures, indent=1))
    records.write_atomic(folder / SCORES, json.dumps([float(score) for score in scores]))
    records.commit(folder, ["figures.json", SCORES])
