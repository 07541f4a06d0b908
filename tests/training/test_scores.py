"""Losses on scores: NumPy's on sequences scored alone, and one update however it is packed and cut."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.config import RewardModelSettings
from r1jax.data.examples import Example
from r1jax.data.packing import micro_batches
from r1jax.data.preferences import Labelled, Pair
from r1jax.losses import merge_metrics
from r1jax.models.published import PUBLISHED
from r1jax.pipeline.reward_model.learning import pack_judged
from r1jax.scoring.sequences import SequenceScorer
from r1jax.training import MicroStep, ScoreMicroStep, ZeroGrads, pairwise_score_loss, pointwise_score_loss, sft_token_loss

LOSSES = {"pairwise": pairwise_score_loss, "pointwise": pointwise_score_loss}


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def judged(objective, count=7, vocabulary=64, seed=0):
    rng = np.random.default_rng(seed)

    def sequence():
        length = int(rng.integers(3, 15))
        return Example(rng.integers(1, vocabulary, length).astype(np.int32), int(rng.integers(1, length)))

    if objective == "pairwise":
        return [Pair(sequence(), sequence()) for _ in range(count)]
    return [Labelled(sequence(), label) for label in rng.choice([0, 1, 0.3], count)]


@functools.cache
def programs(config, layout, objective, dtype):
    """Compiled once for all tests."""
    step = ScoreMicroStep(config, layout, LOSSES[objective], compute_dtype=dtype)
    return step, ZeroGrads(config, layout, dtype=dtype)


def update(tiny, config, objective, some, row_tokens=32, rows=2, sizes=(1, 1, 1), dtype=jnp.float32, order=None):
    """Gradients and metrics of an update, from its packed rows."""
    layout = tiny.make_layout(sizes)
    step, zero_grads = programs(config, layout, objective, dtype)
    batch = pack_judged(some, row_tokens, RewardModelSettings(rows_per_microbatch=rows))
    params, grads, parts = tiny.any_parameters(config, layout, dtype), zero_grads(), []
    pieces = list(micro_batches(batch, rows))
    for piece in pieces if order is None else [pieces[i] for i in order(len(pieces))]:
        grads, metrics = step(params, grads, piece)
        parts.append(metrics)
    return grads, merge_metrics(jax.device_get(parts))


@pytest.fixture
def config(tiny):
    return tiny.model_config(num_labels=1)


def alone(tiny, config, some):
    """The scores of their sequences, each by itself in a row."""
    layout = tiny.make_layout()
    scorer = SequenceScorer(config, layout, longest=16, rows=1)
    return scorer(tiny.any_parameters(config, layout), [s.tokens for each in some for s in each.sequences]).astype(
        np.float64
    )


@pytest.mark.parametrize("objective", LOSSES)
def test_the_loss_of_an_update_is_numpy_s(tiny, config, objective):
    some = judged(objective)
    _, metrics = update(tiny, config, objective, some)
    scores = alone(tiny, config, some)
    assert np.ptp(scores) > 0.1
    if objective == "pairwise":
        margin = scores[::2] - scores[1::2]
        losses, right, named = np.log1p(np.exp(-margin)), margin > 0, "pair_accuracy"
        assert metrics["score_margin"] == pytest.approx(margin.mean(), abs=1e-5)
    else:
        labels = np.array([each.label for each in some])
        losses = labels * np.log1p(np.exp(-scores)) + (1 - labels) * np.log1p(np.exp(scores))
        right, named = (scores > 0) == (labels > 0.5), "label_accuracy"
    assert metrics["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert metrics[named] == pytest.approx(right.mean()) and metrics["tokens"] == len(some)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["pairwise", "pointwise"])
def test_one_update_however_it_is_packed_and_cut(tiny, config, objective):
    """Invariant 1, in float64: rows of other lengths, other micro-batches, another order of them."""
    some = judged(objective)
    with jax.enable_x64(True):
        whole, metrics = update(tiny, config, objective, some, 32, 2, dtype=jnp.float64)
        norm = np.linalg.norm(flat(whole))
        assert norm > 0.01
        for row_tokens, rows, order in ((32, 1, lambda n: range(n)[::-1]), (200, 1, None)):
            grads, told = update(tiny, config, objective, some, row_tokens, rows, dtype=jnp.float64, order=order)
            assert np.linalg.norm(flat(grads) - flat(whole)) < 1e-9 * norm
            for name, value in metrics.items():
                assert told[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.slow
@pytest.mark.parametrize("objective", LOSSES)
def test_one_update_on_any_mesh_and_in_experts(tiny, objective):
    """A pair lies in one row, whatever shard has it; in float32, of the gradient's norm."""
    config = dataclasses.replace(PUBLISHED["tiny-deepseek-v3"].config, num_labels=1, num_nextn_predict_layers=0)
    some = judged(objective, 12)
    whole, metrics = update(tiny, config, objective, some, 32, 8)
    grads, told = update(tiny, config, objective, some, 32, 8, sizes=(2, 2, 2))
    assert np.linalg.norm(flat(grads) - flat(whole)) < 1e-4 * np.linalg.norm(flat(whole))
    assert told["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_what_comes_twice_counts_twice(tiny, config):
    a, b = judged("pairwise", 2)
    _, once = update(tiny, config, "pairwise", [a, b])
    _, twice = update(tiny, config, "pairwise", [a, a, b])
    alone_a, alone_b = (update(tiny, config, "pairwise", [each])[1]["loss"] for each in (a, b))
    assert once["loss"] == pytest.approx((alone_a + alone_b) / 2, rel=1e-5)
    assert twice["loss"] == pytest.approx((2 * alone_a + alone_b) / 3, rel=1e-5)


def test_packing_says_where_scores_weights_and_labels_stand():
    some = judged("pairwise", 9)
    batch = pack_judged(some, 32, RewardModelSettings(rows_per_microbatch=2))
    for i in range(9):
        places = [np.argwhere(batch.sequence_index == 2 * i + k) for k in range(2)]
        assert places[0][0, 0] == places[1][0, 0], "both in one row"
        for (at, last), weight in zip(((p, p[-1]) for p in places), (1 / 9, 0)):
            assert batch.completion_mask[tuple(last)] == 1 and batch.completion_mask[tuple(at.T)].sum() == 1
            assert batch.token_weight[tuple(last)] == np.float32(weight)
    assert batch.token_weight.sum() == pytest.approx(1, rel=1e-6) and batch.labels is None
    some = judged("pointwise", 9)
    batch = pack_judged(some, 32, RewardModelSettings(rows_per_microbatch=2))
    for i, each in enumerate(some):
        last = tuple(np.argwhere(batch.sequence_index == i)[-1])
        assert batch.labels[last] == np.float32(each.label) and batch.token_weight[last] == np.float32(1 / 9)
    assert np.count_nonzero(batch.token_weight) == 9


def test_padding_changes_nothing(tiny, config):
    layout = tiny.make_layout()
    step, zero = programs(config, layout, "pairwise", jnp.float32)
    batch = next(micro_batches(pack_judged(judged("pairwise"), 32, RewardModelSettings(rows_per_microbatch=2)), 2))
    padding = batch.segment_ids == 0
    assert padding.any()
    spoilt = batch._replace(tokens=np.where(padding, 63, batch.tokens).astype(np.int32))
    params = tiny.any_parameters(config, layout)
    (grads, metrics), (other, told) = step(params, zero(), batch), step(params, zero(), spoilt)
    assert metrics["loss"] == told["loss"] and (flat(grads) == flat(other)).all()


def test_a_model_of_the_other_kind_is_refused(tiny, config):
    with pytest.raises(ValueError, match="a loss on scores for a model without a scalar head"):
        ScoreMicroStep(tiny.config, tiny.layout, pairwise_score_loss)
    step = MicroStep(config, tiny.layout, sft_token_loss)
    with pytest.raises(ValueError, match="reward model: its scalar head gives a score and no tokens"):
        step(
            tiny.any_parameters(config, tiny.layout), ZeroGrads(config, tiny.layout)(), next(micro_batches(tiny.batch(), 2))
        )
