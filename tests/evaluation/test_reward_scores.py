"""Figures of a reward model's scores: against scipy and against counts by hand."""

import numpy as np
import pytest

from r1jax.evaluation.reward_scores import (
    pairwise_figures,
    pearson,
    pointwise_figures,
    reliability,
    sigmoid,
    spearman,
)


def test_correlations_are_scipy_s():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = rng.normal(size=50)
        y = np.round(x + rng.normal(size=50))  # with ties
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_correlation_with_what_does_not_change_is_none():
    assert pearson(np.ones(4), np.arange(4)) is None and spearman(np.arange(4), np.ones(4)) is None
    assert pearson(np.array([]), np.array([])) is None
    assert pearson(np.arange(3), -2 * np.arange(3)) == pytest.approx(-1)


def test_calibration_by_hand():
    said, happened = np.array([0.05, 0.08, 0.55, 1.0, 0.95]), np.array([0, 1, 1, 1, 0])
    error, bins = reliability(said, happened)
    assert [(b["from"], b["count"]) for b in bins] == [(0.0, 2), (0.5, 1), (pytest.approx(0.9), 2)]
    assert error == pytest.approx((2 * abs(0.5 - 0.065) + abs(1 - 0.55) + 2 * abs(0.5 - 0.975)) / 5)
    assert reliability(np.full(4, 0.75), np.array([1, 1, 1, 0]), lowest=0.5)[0] == 0


def test_what_is_drawn_from_its_own_probabilities_is_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < sigmoid(scores)).astype(float)
    assert pointwise_figures(scores, labels, rng.integers(1, 9, 20_000))["calibration_error"] < 0.02
    assert pointwise_figures(3 * scores, labels, rng.integers(1, 9, 20_000))["calibration_error"] > 0.1
    swap = labels == 0  # which response is called chosen depends on the labels, the margin on both
    figures = pairwise_figures(np.where(swap, 0, scores), np.where(swap, scores, 0), np.ones(20_000), np.ones(20_000))
    assert figures["calibration_error"] < 0.02
    assert figures["accuracy"] == pytest.approx(np.mean((scores > 0) == (labels > 0)), abs=1e-12)


def test_pairs_by_hand():
    figures = pairwise_figures(
        np.array([1.0, 0.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0, -1.0]), np.array([2, 3, 4, 5]), np.array([1, 5, 4, 9])
    )
    assert figures["accuracy"] == pytest.approx((1 + 0 + 0.5 + 1) / 4) and figures["margin"] == pytest.approx(0.5)
    assert (figures["shorter"], figures["accuracy_shorter"]) == (2, 0.5)
    assert (figures["longer"], figures["accuracy_longer"]) == (1, 1.0)
    assert figures["longer_wins"] == pytest.approx((1 + 0 + 0.5 + 0) / 4) and figures["pairs"] == 4
    low, high = figures["accuracy_interval"]
    assert low < figures["accuracy"] < high
    assert figures["length_pearson"] == pytest.approx(np.corrcoef([1, 0, 2, 1, 0, 1, 2, -1], [2, 3, 4, 5, 1, 5, 4, 9])[0, 1])


def test_a_score_that_is_length_shows():
    lengths = np.random.default_rng(0).integers(1, 50, (2, 200))
    figures = pairwise_figures(*lengths.astype(float), *lengths)
    assert figures["length_pearson"] == pytest.approx(1) and figures["length_spearman"] == pytest.approx(1)
    assert figures["accuracy_shorter"] == 0 and figures["accuracy_longer"] == 1
    assert figures["accuracy"] == figures["longer_wins"]


def test_labels_by_hand():
    figures = pointwise_figures(np.array([2.0, -1.0, -3.0, 1.0]), np.array([1, 1, 0, 0]), np.array([1, 2, 3, 4]))
    assert (figures["accuracy"], figures["accuracy_safe"], figures["accuracy_unsafe"]) == (0.5, 0.5, 0.5)
    assert figures["margin"] == pytest.approx(0.5 - -1) and figures["responses"] == 4
    one_sided = pointwise_figures(np.array([2.0, -1.0]), np.ones(2), np.array([1, 2]))
    assert one_sided["accuracy_unsafe"] is None and one_sided["margin"] is None and one_sided["accuracy_safe"] == 0.5


def test_large_scores_overflow_nothing():
    with np.errstate(all="raise", under="ignore"):
        figures = pointwise_figures(np.array([1e4, -1e4]), np.array([1, 0]), np.array([1, 2]))
    assert figures["calibration_error"] == 0 and figures["accuracy"] == 1
