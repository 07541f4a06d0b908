"""The protocol of rewards that a model gives."""

import math

import pytest

from r1jax.rewards.mixing import mix
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict
from r1jax.scoring.parts import model_values


class Lengths:
    """The length of a completion; none of an empty one."""

    name = "length"

    def __call__(self, requests):
        return [len(request.completion) or None for request in requests]


class Given:
    name = "given"

    def __init__(self, values):
        self.values = values

    def __call__(self, requests):
        return self.values


def requests(*completions):
    return [RewardRequest({}, "", completion) for completion in completions]


def test_values_come_in_the_order_of_the_requests_and_none_stays_none():
    values = model_values(Lengths(), requests("abc", "", "a"))
    assert values == [3.0, None, 1.0]
    assert isinstance(values[0], float)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_ungraded(value):
    values = model_values(Given([value, 2]), requests("a", "b"))
    rewards, graded = mix([RewardRecord({"given": v}, Verdict.NONE) for v in values], {"given": 1.0})
    assert values == [None, 2.0] and graded.tolist() == [False, True] and rewards.tolist() == [0.0, 2.0]


def test_another_number_of_values_is_refused():
    with pytest.raises(ValueError, match="'given' gave 1 values to 2 requests"):
        model_values(Given([1.0]), requests("a", "b"))
