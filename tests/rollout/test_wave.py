"""The wave refuses what can't be sampled."""

import numpy as np
import pytest

from r1jax.rollout.wave import Wave

GOOD = dict(
    prompts=(np.array([1, 2]),), prompt_ids=(0,), samples=2, seed=0, rollout=0, max_tokens=4, stop_ids=frozenset({1})
)


def test_a_good_wave():
    assert Wave(**GOOD).temperature == 1.0


@pytest.mark.parametrize(
    "wrong",
    [dict(samples=0), dict(max_tokens=0), dict(temperature=-1.0), dict(top_p=0.0), dict(prompts=(np.array([], int),)),
     dict(prompt_ids=(0, 1)), dict(prompts=(), prompt_ids=()), dict(prompt_ids=(-1,)), dict(seed=2**31), dict(rollout=-1),
     dict(first_sample=-1), dict(top_k=-1), dict(min_p=1.0), dict(prompts=(np.array([1]),) * 2, prompt_ids=(5, 5))],
)  # fmt: skip
def test_what_is_wrong_is_refused(wrong):
    with pytest.raises(ValueError):
        Wave(**{**GOOD, **wrong})
