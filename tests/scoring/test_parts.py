"""The protocol of rewards that a model gives."""

import math

import pytest

from r1jax.rewards.mixing import mix
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict
from r1jax.scoring.parts import Scored, model_scores


class Lengths:
    """The length of a completion; none of an empty one."""

    name = "length"

    def score(self, requests):
        return [Scored(len(request.completion) or None, "" if request.completion else "empty") for request in requests]


class Given:
    name = "given"

    def __init__(self, values):
        self.values = values

    def score(self, requests):
        return [Scored(value) for value in self.values]


def requests(*completions):
    return [RewardRequest({}, "", completion) for completion in completions]


def test_values_come_in_the_order_of_the_requests_and_none_stays_none():
    scored = model_scores(Lengths(), requests("abc", "", "a"))
    assert scored == [Scored(3.0), Scored(None, "empty"), Scored(1.0)]
    assert isinstance(scored[0].value, float)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_ungraded(value):
    scored = model_scores(Given([value, 2]), requests("a", "b"))
    assert scored[0].reason == f"reward given: the model gave {value}" and scored[1].reason == ""
    values = [each.value for each in scored]
    rewards, graded = mix([RewardRecord({"given": v}, Verdict.NONE) for v in values], {"given": 1.0})
    assert values == [None, 2.0] and graded.tolist() == [False, True] and rewards.tolist() == [0.0, 2.0]


def test_another_number_of_values_is_refused():
    with pytest.raises(ValueError, match="'given' gave 1 values to 2 requests"):
        model_scores(Given([1.0]), requests("a", "b"))
