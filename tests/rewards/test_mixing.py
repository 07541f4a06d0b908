"""Mixing: a weighted sum; a needed part that is None makes the sample ungraded."""

import numpy as np
import pytest

from r1jax.rewards import RewardRecord, Verdict, mix


def record(**parts):
    return RewardRecord(parts, Verdict.NONE)


def test_weighted_sum():
    rewards, graded = mix([record(a=1.0, b=0.5), record(a=0.0, b=-1.0)], {"a": 1.0, "b": 2.0})
    np.testing.assert_array_equal(rewards, [2.0, -2.0])
    assert rewards.dtype == np.float64 and graded.dtype == np.bool_ and graded.all()


def test_a_needed_part_that_is_none_ungrades_the_sample():
    records = [record(a=1.0, b=None), record(a=None, b=1.0), record(a=1.0, b=1.0)]
    rewards, graded = mix(records, {"a": 1.0, "b": 1.0})
    assert graded.tolist() == [False, False, True] and rewards.tolist() == [0.0, 0.0, 2.0]
    rewards, graded = mix(records, {"a": 1.0, "b": 0.0})  # logged, not needed
    assert graded.tolist() == [True, False, True] and rewards.tolist() == [1.0, 0.0, 1.0]


def test_bad_input():
    with pytest.raises(ValueError, match="no reward 'c'; it has a"):
        mix([record(a=1.0)], {"c": 1.0})
    with pytest.raises(ValueError, match="finite"):
        mix([record(a=1.0)], {"a": float("nan")})
    assert [len(array) for array in mix([], {"a": 1.0})] == [0, 0]
