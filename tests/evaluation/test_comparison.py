"""Paired differences: the same problems on both sides, the interval of the difference and not of the sides."""

import numpy as np
import pytest

from r1jax.evaluation import bootstrap_interval, paired_differences, problem_means


def sample(problem, right, tokens=10, **parts):
    return {
        "id": f"p-{problem}",
        "problem": f"Problem {problem}",
        "right": right,
        "tokens": tokens,
        "finish_reason": "length" if tokens > 50 else "stop",
        "completion": "wait" if right else "so",
        "parts": {"accuracy": float(right), **parts},
    }


def test_means_by_problem():
    means = problem_means(
        [sample(0, True, 10, language=1.0), sample(0, False, 60, language=None), sample(1, False, 30, language=None)]
    )
    key = [(f"p-{i}", f"Problem {i}") for i in range(2)]
    assert means["pass@1"] == {key[0]: 0.5, key[1]: 0.0}
    assert means["mean_tokens"] == {key[0]: 35.0, key[1]: 30.0}
    assert means["truncated"] == {key[0]: 0.5, key[1]: 0.0}
    assert means["reflection"] == {key[0]: 0.5, key[1]: 0.0}
    assert means["part language"] == {key[0]: 1.0}  # a problem of which nothing was graded has no mean
    assert "part accuracy" not in means  # it is pass@1 with what was cut off


def test_the_interval_is_paired():
    # Problems differ widely and the second model is better by one sample on every tenth: the difference is known far better
    # than either side, whose own intervals overlap.
    rng = np.random.default_rng(0)
    worse, better = [], []
    for problem in range(200):
        hard = rng.random()
        for number in range(4):
            right = number / 4 < hard
            worse.append(sample(problem, right))
            better.append(sample(problem, right or (problem % 10 == 0 and number == 3)))
    found = paired_differences(problem_means(better), problem_means(worse))["pass@1"]
    gained = sum(not w["right"] and b["right"] for w, b in zip(worse, better)) / 800
    assert found["difference"] == pytest.approx(gained) and found["of"] - found["against"] == pytest.approx(gained)
    low, high = found["interval"]
    assert 0 < low < gained < high < 0.05
    sides = [bootstrap_interval(np.array(list(problem_means(side)["pass@1"].values()))) for side in (worse, better)]
    assert sides[0][1] > sides[1][0]  # unpaired, the two could not be told apart


def test_only_common_problems_and_figures_count():
    one = problem_means([sample(0, True, language=1.0), sample(1, True, language=0.0)])
    other = problem_means([sample(1, False), sample(2, True)])
    found = paired_differences(one, other)
    assert found["pass@1"] == {"problems": 1, "of": 1.0, "against": 0.0, "difference": 1.0, "interval": [1.0, 1.0]}
    assert "part language" not in found
    assert paired_differences(one, problem_means([sample(5, True)])) == {}
