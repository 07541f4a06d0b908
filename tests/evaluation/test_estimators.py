"""Estimators, on data whose answer is known exactly or whose distribution is Bernoulli."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from r1jax.evaluation.estimators import bootstrap_interval, majority, pass_at_1, pass_at_k


def test_pass_at_1_is_the_mean_share_and_does_not_depend_on_how_many_samples():
    right = np.array([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert pass_at_1(right).tolist() == [0.5, 1.0, 0.0]
    # lighteval #771: pass@1 halved when the samples doubled. Repeating every sample changes nothing.
    assert pass_at_1(np.repeat(right, 2, axis=1)).mean() == pass_at_1(right).mean() == 0.5


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_equals_the_count_of_all_draws(n):
    for count in range(n + 1):
        right = np.arange(n) < count
        for k in range(1, n + 1):
            draws = list(itertools.combinations(right, k))
            exact = Fraction(sum(any(draw) for draw in draws), len(draws))
            assert pass_at_k(right[None], k)[0] == pytest.approx(float(exact), abs=1e-15)
            assert exact == 1 - Fraction(comb(n - count, k), comb(n, k))


def test_pass_at_k_is_unbiased_on_bernoulli_samples():
    # E over Binomial(n, p) of the estimator is 1 - (1 - p)^k exactly; the sum over counts has no sampling error.
    n, p = 16, 0.3
    chance = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    for k in (1, 2, 8, 16):
        estimate = [pass_at_k((np.arange(n) < c)[None], k)[0] for c in range(n + 1)]
        assert np.dot(chance, estimate) == pytest.approx(1 - (1 - p) ** k, abs=1e-12)
    # and many samples neither overflow nor lose the last right one
    assert pass_at_k((np.arange(10_000) < 1)[None], 5_000)[0] == pytest.approx(0.5, abs=1e-9)


def test_shapes_and_ranges_are_refused():
    with pytest.raises(ValueError, match="samples per problem"):
        pass_at_k(np.ones((2, 3)), 4)
    with pytest.raises(ValueError, match="shape"):
        pass_at_1(np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval([0.0, np.nan])
    with pytest.raises(ValueError, match="shape"):
        bootstrap_interval([])


def test_the_majority_is_the_largest_group_and_ties_go_to_the_first_seen():
    assert majority(["a", "b", "b"]) == 1
    assert majority(["a", "b", "b", "a"]) == 0
    assert majority([None, "b", "a"]) == 1
    assert majority([None, None]) is None
    assert majority(["c", None, None, None]) == 0


def test_the_majority_groups_by_the_given_equality_only_where_it_must():
    asked = []

    def same(x, y):
        asked.append((x, y))
        return abs(x) == abs(y)

    # 5 | 3 and -3 | -5: two groups of two and then -3 decides
    assert majority([5, 3, -3, -5, -3], same) == 1
    assert all(x != y for x, y in asked)
    # -3 was placed once; its second appearance asked nothing
    assert sum(y == -3 for _, y in asked) == 2


def test_the_interval_weighs_a_problem_by_its_rows():
    """One problem in three rows, one in one: the mean over rows is 0 or 1 where the same one is drawn twice, else 3/4."""
    assert bootstrap_interval([1.0, 1.0, 1.0, 0.0], problems=["a", "a", "a", "b"], level=0.4) == (0.75, 0.75)
    assert bootstrap_interval([1.0, 1.0, 1.0, 0.0], problems=["a", "a", "a", "b"]) == (0.0, 1.0)


def test_the_interval_of_bernoulli_means_has_the_normal_width_and_covers():
    random = np.random.default_rng(1)
    # n = 400, p = .3: standard error sqrt(.21/400) = .0229; the percentile bootstrap's half width is 1.96 of those
    values = (np.arange(400) < 120).astype(float)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    noise = random.normal(size=50)
    assert bootstrap_interval(noise, seed=3) == bootstrap_interval(noise, seed=3) != bootstrap_interval(noise, seed=4)
    assert low < 0.3 < high and (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.21 / 400), rel=0.04)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_interval(random.random(200) < 0.4, resamples=400)
        covered += low <= 0.4 <= high
    assert 0.91 <= covered / 300 <= 0.985  # 95% by design; 300 draws have a standard error of 1.3%


def test_the_problem_is_the_unit_of_the_interval():
    # 20 problems, each all right or all wrong: 64 samples each add nothing, and the interval must not shrink.
    shares = pass_at_1(np.repeat((np.arange(20) < 10)[:, None], 64, axis=1))
    low, high = bootstrap_interval(shares)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 20), rel=0.15)
    # nor does it shrink if each is asked in four rows
    rows, problems = np.repeat(shares, 4), [f"problem {i // 4}" for i in range(80)]
    low, high = bootstrap_interval(rows, problems=problems)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 20), rel=0.15)
    low, high = bootstrap_interval(rows)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 80), rel=0.15)
    with pytest.raises(ValueError, match="79 problems for 80 values"):
        bootstrap_interval(rows, problems=problems[1:])
    # the paired interval of a constant gain has no width, however the problems differ
    assert bootstrap_interval((shares + 0.1) - shares) == pytest.approx((0.1, 0.1))
