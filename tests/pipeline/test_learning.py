"""Token weights of a minibatch do not depend on which of its sequences are packed; what does not learn is not decayed."""

import functools

import jax
import numpy as np
import pytest

from r1jax import sharding
from r1jax.config import GRPOSettings, LossSettings, OptimizerSettings, RouterSettings, SFTSettings
from r1jax.data.packing import PackItem, pack
from r1jax.losses import token_weights
from r1jax.models import abstract_params
from r1jax.models.published import PUBLISHED
from r1jax.pipeline.grpo import learning as grpo
from r1jax.pipeline.grpo.learning import sequence_weights
from r1jax.pipeline.sft import learning as sft
from r1jax.rollout.wave import SampledSequence


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


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
@pytest.mark.parametrize(
    ("learner", "settings"), [(grpo.Learner, GRPOSettings), (sft.Learner, functools.partial(SFTSettings, steps=1))]
)
def test_modules_of_prediction_that_do_not_learn_are_not_decayed(learner, settings, coefficient):
    model = PUBLISHED["tiny-deepseek-v3"].config
    layout = sharding.layout(sharding.make_mesh(1, 1, 1, jax.devices()[:1]), sharding.TRAIN_RULES)
    more = (1,) if learner is sft.Learner else ()
    settings = settings(mtp_coefficient=coefficient, optimizer=OptimizerSettings(weight_decay=0.5))
    transform = learner(model, layout, settings, *more, np.float32)._optimizer.transform
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), abstract_params(model))
    gradients = jax.tree.map(np.zeros_like, params)
    updates = jax.jit(lambda: transform.update(gradients, transform.init(params), params)[0])()
    moved = {name: any(np.any(x) for x in jax.tree.leaves(part)) for name, part in updates.items()}
    assert moved == dict.fromkeys(params, True) | {"final_norm": False, "mtp": coefficient > 0}


@pytest.mark.parametrize(("router", "packed"), [({}, [1]), ({"balance": 1e-3}, [0, 1, 2]), ({"bias_rate": 1e-3}, [0, 1, 2])])
def test_sequences_without_advantage_are_packed_where_something_else_reads_them(router, packed):
    model = PUBLISHED["tiny-deepseek-v3"].config
    layout = sharding.layout(sharding.make_mesh(1, 1, 1, jax.devices()[:1]), sharding.TRAIN_RULES)
    loss = LossSettings(kl="none", kl_coefficient=0.0)
    settings = GRPOSettings(rows_per_microbatch=1, loss=loss, router=RouterSettings(**router))
    ids = np.arange(4, dtype=np.int32)
    sequences = [SampledSequence(i, 0, ids, ids, np.zeros(4, np.float32), "stop") for i in range(3)]
    learner = grpo.Learner(model, layout, settings, np.float32)
    advantages, included = np.array([0, 1, 0], np.float32), np.ones(3, bool)
    batches = learner._pack(sequences, advantages, included, np.arange(3), 4, 8)
    found = {i for batch in batches for i in np.unique(batch.sequence_index[batch.segment_ids > 0])}
    assert sorted(found) == packed
    if router.get("balance"):
        assert sum(batch.balance_weight.sum() for batch in batches) == pytest.approx(1)
