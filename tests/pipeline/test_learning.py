"""Token weights of a minibatch do not depend on which of its sequences are packed."""

import numpy as np
import pytest

from r1jax.data.packing import PackItem, pack
from r1jax.losses import token_weights
from r1jax.pipeline.grpo.learning import sequence_weights


@pytest.mark.parametrize("rule", ["sequence_mean", "token_mean", "constant_length"])
def test_weights_from_lengths_are_those_of_the_packed_rows(rule):
    rng = np.random.default_rng(0)
    lengths, graded = rng.integers(1, 9, 12), rng.random(12) < 0.7
    weights = sequence_weights(lengths, graded, rule, 20)
    items = [PackItem(i, np.ones(3 + n, np.int32), 3) for i, n in enumerate(lengths)]
    rows = pack(items, 24)
    wanted = token_weights(rows.completion_mask, rows.sequence_index, rule=rule, length=20, include=graded)
    for i in range(12):
        of_sequence = wanted[(rows.sequence_index == i) & (rows.completion_mask > 0)]
        np.testing.assert_array_equal(of_sequence, np.full(lengths[i], weights[i]))
    assert (weights[~graded] == 0).all() and (weights[graded] > 0).all()
