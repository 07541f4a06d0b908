"""Buckets, and who sits where."""

import numpy as np
import pytest

from r1jax.rollout.schedule import Slots, ladder, prompt_bucket, row_ladder
from r1jax.rollout.wave import Wave


@pytest.mark.parametrize(
    "first, last, expected",
    [
        (128, 1000, (128, 256, 512, 1008)),  # the last is cut to what is needed, rounded up to 16
        (128, 1024, (128, 256, 512, 1024)),
        (64, 64, (64,)),
        (100, 100, (100,)),
        (8, 9, (8, 16)),
        (128, 40, (48,)),
        (128, 1, (16,)),
    ],
)
def test_lengths_double_until_they_cover(first, last, expected):
    assert ladder(first, last) == expected


def test_prompt_buckets_do_not_follow_the_prompts():
    assert [prompt_bucket(8, n) for n in (1, 7, 8, 9, 16, 17)] == [8, 8, 8, 16, 16, 32]


@pytest.mark.parametrize(
    "rows, multiple, expected",
    [(32, 1, (32, 8)), (1, 1, (1,)), (3, 1, (3, 1)), (16, 8, (16, 8)), (4, 8, (8,)), (20, 4, (20, 8))],
)
def test_rows_are_all_or_a_quarter_and_fit_the_mesh(rows, multiple, expected):
    assert row_ladder(rows, multiple) == expected


def wave(prompts, samples):
    return Wave(tuple(np.array([1]) for _ in range(prompts)), tuple(range(prompts)), samples, 0, 0, 4, frozenset())


def test_a_freed_lane_takes_the_next_sample_and_a_freed_row_the_next_prompt():
    slots = Slots(wave(3, 3), rows=2, lanes=2)
    first = slots.admit()
    assert first.prompts == [(0, 0), (1, 1)]
    assert first.lanes == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]
    assert slots.admit().lanes == [] and slots.work_waiting

    assert slots.finish(np.array([True, False, True, True])) == [(1, 0, 1)]
    again = slots.admit()
    assert again.prompts == [] and again.lanes == [(1, 0, 2)]

    assert slots.finish(np.array([False, False, True, True])) == [(0, 0, 0), (1, 0, 2)]
    third = slots.admit()
    assert third.prompts == [(0, 2)] and third.lanes == [(0, 2, 0), (1, 2, 1)]
    assert not slots.prompts_waiting and slots.work_waiting  # prompts 1 and 2 have a sample left each


@pytest.mark.parametrize("prompts, samples, rows, lanes", [(1, 1, 1, 1), (5, 4, 2, 3), (2, 7, 3, 2), (7, 1, 3, 4)])
def test_every_sample_sits_exactly_once_whatever_finishes_when(prompts, samples, rows, lanes):
    rng = np.random.default_rng(0)
    slots = Slots(wave(prompts, samples), rows, lanes)
    seen, active = [], np.zeros(rows * lanes, bool)
    while not slots.finished:
        admission = slots.admit()
        for lane, prompt, sample in admission.lanes:
            assert not active[lane] and slots.prompt[lane // lanes] == prompt
            active[lane] = True
            seen.append((prompt, sample))
        active &= rng.random(active.shape) < 0.5
        slots.finish(active)
    assert sorted(seen) == [(p, s) for p in range(prompts) for s in range(samples)]
    assert not slots.work_waiting and len(slots.occupied()) == 0


def test_moving_keeps_the_rows_that_are_named():
    slots = Slots(wave(3, 3), rows=3, lanes=1)
    slots.admit()
    slots.finish(np.array([True, False, True]))
    slots.admit()  # prompt 1 now has sample 1
    slots.move(np.array([2, 1, -1, -1]))
    assert slots.rows == 4
    assert slots.prompt.tolist() == [2, 1, -1, -1]
    assert slots.sample[:, 0].tolist() == [0, 1, -1, -1]
    slots.finish(np.zeros(4, bool))
    assert slots.admit().lanes == [(0, 2, 1), (1, 1, 2)]
