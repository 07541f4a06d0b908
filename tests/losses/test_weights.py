"""Token weights against the formulas, whatever the packing."""

import numpy as np
import pytest
from losskit import oracle_host

RULES = ("sequence_mean", "token_mean", "constant_length")


def rows(lengths, order, row_length):
    """Sequences of one prompt token and so many completion tokens, laid into rows in this order."""
    mask, index, used = [], [], row_length
    for i in order:
        n = lengths[i] + 1
        if used + n > row_length:
            mask.append(np.zeros(row_length, np.float32))
            index.append(np.full(row_length, -1))
            used = 0
        index[-1][used : used + n] = i
        mask[-1][used + 1 : used + n] = 1
        used += n
    return np.stack(mask), np.stack(index)


@pytest.mark.parametrize("rule", RULES)
def test_the_formula_in_any_packing(losses, rule):
    rng = np.random.default_rng(0)
    lengths = [3, 1, 7, 0, 5, 2]  # one has no completion at all
    expected = oracle_host.weights(lengths, rule, 9)
    for row_length in (8, 11, 40):
        for _ in range(3):
            order = rng.permutation(len(lengths))
            mask, index = rows(lengths, order, row_length)
            found = losses.token_weights(mask, index, rule=rule, length=9)
            assert found.dtype == np.float32 and found.shape == mask.shape
            assert (found[mask == 0] == 0).all()
            for i, weight in enumerate(expected):
                np.testing.assert_allclose(found[(index == i) & (mask > 0)], weight, rtol=1e-7)


def test_the_default_is_the_sequence_mean(losses):
    mask, index = rows([3, 1], range(2), 9)
    assert (losses.token_weights(mask, index) == losses.token_weights(mask, index, rule="sequence_mean")).all()
    np.testing.assert_allclose(losses.token_weights(mask, index)[mask > 0], [1 / 6, 1 / 6, 1 / 6, 1 / 2], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("per_token", [False, True])
def test_a_sequence_that_is_left_out_counts_nowhere(losses, rule, per_token):
    lengths = [3, 1, 7, 4]
    mask, index = rows(lengths, range(4), 9)
    include = np.array([True, False, True, False, True])  # more sequences in the rollout than in this update
    expected = oracle_host.weights([3, None, 7, None], rule, 9)
    given = (index >= 0) & include[index] if per_token else include
    found = losses.token_weights(mask, index, rule=rule, length=9, include=given)
    for i, weight in enumerate(expected):
        np.testing.assert_allclose(found[(index == i) & (mask > 0)], weight, rtol=1e-7)
    if rule != "constant_length":
        np.testing.assert_allclose(found.sum(), 1, rtol=1e-6)


def test_one_sequence_and_one_token(losses):
    mask, index = rows([1], [0], 3)
    assert losses.token_weights(mask, index, rule="constant_length", length=1).max() == 1  # the sum over a sequence
    for rule, expected in (("sequence_mean", 1), ("token_mean", 1), ("constant_length", 0.25)):
        np.testing.assert_allclose(losses.token_weights(mask, index, rule=rule, length=4)[mask > 0], expected)


def test_as_many_entries_as_sequences_are_enough(losses):
    mask, index = rows([3, 1], range(2), 9)
    found = losses.token_weights(mask, index, include=[False, True])
    np.testing.assert_allclose(found[mask > 0], [0, 0, 0, 1])


@pytest.mark.parametrize("rule", RULES)
def test_nothing_left_weighs_nothing(losses, rule):
    mask, index = rows([3, 2], range(2), 9)
    assert (losses.token_weights(mask, index, rule=rule, length=9, include=[False, False]) == 0).all()
    nothing = np.zeros((2, 3)), np.full((2, 3), -1)
    assert (losses.token_weights(*nothing, rule=rule, length=9) == 0).all()
    assert (losses.token_weights(*nothing, rule=rule, length=9, include=[]) == 0).all()
    assert losses.token_weights(np.zeros((0, 3)), np.zeros((0, 3), int), rule=rule, length=9, include=[]).shape == (0, 3)


@pytest.mark.parametrize("rule", RULES)
def test_masks_of_any_kind_say_what_counts(losses, rule):
    mask, index = rows([3, 2], range(2), 9)
    expected = losses.token_weights(mask, index, rule=rule, length=2.5)
    for kind in (bool, np.int8, np.float64):
        assert (losses.token_weights(mask.astype(kind), index.astype(np.int16), rule=rule, length=2.5) == expected).all()
    np.testing.assert_allclose(expected.sum(), 5 / (2 * 2.5) if rule == "constant_length" else 1, rtol=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"rule": "mean"}, "'mean' is unknown; known: sequence_mean"),
        ({"rule": "constant_length"}, "needs a positive length"),
        ({"rule": "constant_length", "length": 0}, "needs a positive length"),
        ({"sequence_index": np.zeros((1, 3), int)}, "one shape"),
        ({"sequence_index": np.array([[0, -1, 0, 0]])}, "lies in padding"),
        ({"include": [True]}, r"include \(1,\) must have one entry per sequence \(more than 1\)"),
        ({"include": np.ones((1, 3))}, r"include \(1, 3\) must have one entry"),
        (
            {"completion_mask": np.ones((0, 4)), "sequence_index": np.zeros((0, 4)), "include": np.ones((1, 3))},
            "more than -1",
        ),
    ],
)
def test_bad_input_is_named(losses, change, words):
    arguments = {"completion_mask": np.ones((1, 4)), "sequence_index": np.array([[0, 0, 1, 1]])}
    with pytest.raises(ValueError, match=words):
        losses.token_weights(**{**arguments, **change})
