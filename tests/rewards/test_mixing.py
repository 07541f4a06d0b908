"""Mixing: a weighted sum; a needed part that is None makes the sample ungraded."""

import time

import numpy as np
import pytest

from r1jax.rewards import RewardRecord, Verdict, mix
from r1jax.rewards.mixing import mix_by_type, part_names, prompt_type


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


PAPER = {
    "reasoning": {"accuracy": 1.0, "format": 1.0, "language": 1.0},
    "general": {"helpfulness": 0.5, "format": 1.0, "language": 1.0},
}


def test_a_prompt_has_only_its_own_branch():
    """Equations 8 to 10 of the paper."""
    parts = {"accuracy": 1.0, "format": 1.0, "language": 0.25, "helpfulness": 3.0}
    reasoning, general = record(**{**parts, "helpfulness": None}), record(**{**parts, "accuracy": None})
    rewards, graded = mix_by_type([reasoning, general, reasoning], ["reasoning", "general", "reasoning"], PAPER)
    np.testing.assert_array_equal(rewards, [2.25, 2.75, 2.25])
    assert graded.all()
    rewards, graded = mix_by_type([reasoning, general], ["general", "reasoning"], PAPER)
    assert not graded.any() and not rewards.any()


def test_types_of_rows():
    assert prompt_type({"type": "general"}) == "general" and prompt_type({}) == prompt_type({"type": None}) == "reasoning"
    with pytest.raises(ValueError, match="type 'generel'; did you mean 'general'"):
        mix_by_type([record(format=1.0)], ["generel"], PAPER)
    with pytest.raises(ValueError, match="there are reasoning, general"):
        mix_by_type([record(format=1.0)], ["xyz"], PAPER)
    with pytest.raises(ValueError, match="1 records with 2 types"):
        mix_by_type([record(a=1.0)], ["a", "b"], PAPER)
    assert [len(array) for array in mix_by_type([], [], PAPER)] == [0, 0]


def test_by_type_equals_mixing_each_type_by_itself():
    rng = np.random.default_rng(0)
    records = [
        record(
            **{
                name: None if rng.random() < 0.1 else float(rng.normal())
                for name in ("accuracy", "format", "language", "helpfulness")
            }
        )
        for _ in range(500)
    ]
    types = [str(name) for name in rng.choice(["reasoning", "general"], 500)]
    rewards, graded = mix_by_type(records, types, PAPER)
    for one, kind, reward, ok in zip(records, types, rewards, graded):
        values = [one.parts[name] for name in PAPER[kind]]
        assert ok == (None not in values)
        assert reward == (sum(w * v for w, v in zip(PAPER[kind].values(), values)) if ok else 0.0)


def test_parts_of_a_recipe():
    assert part_names({"accuracy": 1.0}, PAPER) == ("accuracy", "format", "language", "helpfulness")
    assert part_names({"b": 1.0, "a": 0.0}) == ("b", "a")


def test_a_rollout_of_the_paper_is_mixed_in_no_time():
    names = ("accuracy", "format", "language", "overlong", "repetition")
    records = [record(**dict.fromkeys(names, 0.5)) for _ in range(8_192)]
    start = time.process_time()
    rewards, _ = mix(records, dict.fromkeys(names, 1.0))
    assert time.process_time() - start < 1 and rewards.sum() == 8_192 * 2.5  # measured: 8 ms
