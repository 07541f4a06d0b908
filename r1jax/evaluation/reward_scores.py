"""How good a reward model's scores are, on held-out data: accuracy, calibration, margin, and how they hang on length.

Calibration compares what a model says with what came out. A pointwise score s says that a response is safe with probability
``sigmoid(s)``. Of a pair, the margin m says that the higher response is the better one with probability ``sigmoid(|m|)``, from 1/2
up: which of the two is called chosen must not matter. The expected calibration error is the mean over responses or pairs of
``|share that came out - mean said|`` of their bin (arXiv 1706.04599); the bins are ten of equal width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from r1jax.evaluation.estimators import bootstrap_interval

BINS = 10


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` without overflow, float64."""
    x = np.asarray(x, np.float64)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def reliability(said: np.ndarray, happened: np.ndarray, lowest: float = 0.0) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error, and the bins that hold something.

    Args:
      said: probabilities from ``lowest`` to 1. happened: what came out, in [0, 1].

    Returns:
      ``(error, bins)``: of each bin ``from``, ``to``, ``count``, ``said`` and ``happened`` (means).
    """
    said, happened = np.asarray(said, np.float64), np.asarray(happened, np.float64)
    edges = np.linspace(lowest, 1.0, BINS + 1)
    place = np.clip(np.searchsorted(edges, said, side="right") - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for b in range(BINS):
        own = place == b
        if not own.any():
            continue
        mean, share = float(said[own].mean()), float(happened[own].mean())
        error += own.mean() * abs(share - mean)
        bins.append(
            {"from": float(edges[b]), "to": float(edges[b + 1]), "count": int(own.sum()), "said": mean, "happened": share}
        )
    return float(error), bins


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """The correlation of x and y; None where either is constant or there are fewer than two."""
    x, y = (np.asarray(v, np.float64) - np.mean(v) if len(v) else np.zeros(0) for v in (x, y))
    scale = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.clip(np.sum(x * y) / scale, -1, 1)) if scale > 0 else None


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """The correlation of the ranks, those of ties averaged; None as ``pearson``."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _length(scores: np.ndarray, lengths: np.ndarray) -> dict[str, float | None]:
    return {"length_pearson": pearson(scores, lengths), "length_spearman": spearman(scores, lengths)}


def _share(right: np.ndarray, prompts: Sequence[Hashable] | None) -> dict[str, Any]:
    return {"accuracy": float(right.mean()), "accuracy_interval": bootstrap_interval(right, problems=prompts)}


def pairwise_figures(
    chosen: np.ndarray,
    rejected: np.ndarray,
    chosen_lengths: np.ndarray,
    rejected_lengths: np.ndarray,
    prompts: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Figures of scores of pairs, ``[P]`` each; lengths in tokens of the responses. ``prompts``: whose pairs the interval draws
    together.

    Returns:
      ``pairs``; ``accuracy`` (share with the chosen one above; a tie counts half) with its 95% interval, and the same of the pairs
      whose chosen response is the shorter or the longer one (``accuracy_shorter``, ``accuracy_longer``, with counts
      ``shorter`` and ``longer``); ``margin`` (mean of chosen minus rejected); ``calibration_error``, ``reliability`` (bins);
      ``length_pearson``, ``length_spearman``: correlations of score and length over all responses; ``longer_wins``: the accuracy
      of choosing the longer one.
    """
    margin = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
    right = (margin > 0) + 0.5 * (margin == 0)
    error, bins = reliability(sigmoid(np.abs(margin)), right, lowest=0.5)
    longer = np.sign(np.asarray(chosen_lengths, np.int64) - np.asarray(rejected_lengths, np.int64))
    figures = {
        "pairs": len(margin),
        **_share(right, prompts),
        "margin": float(margin.mean()),
        "calibration_error": error,
        **_length(np.concatenate([chosen, rejected]), np.concatenate([chosen_lengths, rejected_lengths])),
        "longer_wins": float(((longer > 0) + 0.5 * (longer == 0)).mean()),
    }
    for name, own in (("shorter", longer < 0), ("longer", longer > 0)):
        figures |= {name: int(own.sum()), f"accuracy_{name}": float(right[own].mean()) if own.any() else None}
    return figures | {"reliability": bins}


def pointwise_figures(
    scores: np.ndarray, labels: np.ndarray, lengths: np.ndarray, prompts: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Figures of scores of labelled responses, ``[N]`` each; lengths in tokens of the responses. ``prompts``: whose responses the
    interval draws together.

    Returns:
      ``responses``; ``accuracy`` (share on the label's side of 1/2) with its 95% interval, of the safe and of the unsafe ones
      (``accuracy_safe``, ``accuracy_unsafe``); ``margin`` (mean score of the safe minus that of the unsafe ones); ``calibration_error``,
      ``reliability`` (bins); ``length_pearson``, ``length_spearman``: correlations of score and length.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    safe = labels > 0.5
    right = (scores > 0) == safe
    error, bins = reliability(sigmoid(scores), labels)
    both = safe.any() and not safe.all()
    return {
        "responses": len(scores),
        **_share(right, prompts),
        "accuracy_safe": float(right[safe].mean()) if safe.any() else None,
        "accuracy_unsafe": float(right[~safe].mean()) if not safe.all() else None,
        "margin": float(scores[safe].mean() - scores[~safe].mean()) if both else None,
        "calibration_error": error,
        **_length(scores, lengths),
        "reliability": bins,
    }
