"""Reward models' losses and DPO against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks, oracle_others

WEIGHT = [0.1, 0.0, 0.3, 0.2, 0.4]


def compare(function, oracle, arguments, metrics):
    """Loss, gradient by each argument of ``arguments`` (lists) and metrics, in float64."""
    with jax.enable_x64(True):
        positions = tuple(range(len(arguments)))
        (found, figures), gradients = checks.differentiated(function, positions)(*map(jnp.asarray, arguments))
        counted = [i for i, w in enumerate(WEIGHT) if w]

        def whole(*lists):
            return sum(WEIGHT[i] * oracle(*(x[i] for x in lists), i) for i in counted)

        np.testing.assert_allclose(found, whole(*arguments).real, rtol=1e-12)
        for k, gradient in enumerate(gradients):
            kept = [x if j != k else None for j, x in enumerate(arguments)]
            slopes = oracle_others.derivative(
                lambda x, kept=kept: whole(*(x if a is None else a for a in kept)), list(arguments[k])
            )
            np.testing.assert_allclose(gradient, slopes, rtol=1e-10, atol=1e-16)
        total = sum(WEIGHT)
        expected = {name: sum(WEIGHT[i] * value(i) for i in counted) / total for name, value in metrics.items()}
        expected |= {"tokens": len(counted), "weight": total, "loss": whole(*arguments).real}
        assert {name: float(v) for name, v in figures.items()} == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("margin", [0.0, 1.5, [0.3, np.nan, 0.0, 2.0, 1.0]])
def test_bradley_terry(losses, margin):
    rng = np.random.default_rng(0)
    chosen, rejected = (rng.normal(0, 2, 5).tolist() for _ in range(2))
    rejected[3] = chosen[3]  # a tie
    chosen[1] = np.nan  # weightless
    each = margin if isinstance(margin, list) else [margin] * 5
    compare(
        lambda c, r: losses.pairwise_reward_loss(c, r, np.asarray(WEIGHT), margin=jnp.asarray(margin)),
        lambda c, r, i: oracle_others.pairwise(c, r, each[i]),
        [chosen, rejected],
        {
            "pair_accuracy": lambda i: 0.5 if i == 3 else float(chosen[i] > rejected[i]),
            "score_margin": lambda i: chosen[i] - rejected[i],
            "chosen_score": lambda i: chosen[i],
            "rejected_score": lambda i: rejected[i],
        },
    )


def test_accuracy_counts_wins_and_half_of_ties(losses):
    high, low, weight = np.array([3.0, 1.0, 2.0, 0.5]), np.array([1.0, 3.0, 2.0, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])
    zero = np.zeros(4)
    for metrics in (
        losses.pairwise_reward_loss(high, low, weight)[1],
        losses.dpo_loss(high, low, zero, zero, weight, beta=1.0)[1],
    ):
        np.testing.assert_allclose(metrics["pair_accuracy"], 0.1 + 0.15 + 0.4, rtol=1e-6)


def test_the_margin_must_be_won(losses):
    one = np.ones(1)
    loss = [losses.pairwise_reward_loss(2 * one, one, one, margin=m)[0] for m in (0.0, 1.0)]
    np.testing.assert_allclose(loss, [np.log1p(np.exp(-1)), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(losses.pairwise_reward_loss(2 * one, one, one)[0], loss[0])


def test_pointwise(losses):
    scores, labels = [0.5, np.nan, -2.0, 1.0, 0.0], [1.0, np.nan, 0.25, 0.0, 1.0]
    compare(
        lambda s: losses.pointwise_reward_loss(s, np.asarray(labels), np.asarray(WEIGHT)),
        lambda s, i: oracle_others.pointwise(s, labels[i]),
        [scores],
        {
            "label_accuracy": lambda i: float((scores[i] > 0) == (labels[i] > 0.5)),
            "predicted_mean": lambda i: 1 / (1 + np.exp(-scores[i])),
            "label_mean": lambda i: labels[i],
        },
    )


def test_labels_on_the_fence(losses):
    _, metrics = losses.pointwise_reward_loss(np.array([-1.0, 1.0]), np.array([0.5, 0.6]), np.array([0.5, 0.5]))
    assert metrics["label_accuracy"] == 1
    assert losses.pointwise_reward_loss(np.ones(2), np.array([1, 0]), np.ones(2))[0].dtype == jnp.float32


@pytest.mark.parametrize("beta, smoothing", [(0.1, 0.0), (0.7, 0.2)])
def test_dpo(losses, beta, smoothing):
    rng = np.random.default_rng(1)
    new_chosen, new_rejected, ref_chosen, ref_rejected = (rng.normal(-20, 3, 5).tolist() for _ in range(4))
    new_rejected[2], ref_rejected[2] = new_chosen[2], ref_chosen[2]  # a tie
    ref_chosen[1] = np.nan

    def rewards(i):
        return beta * (new_chosen[i] - ref_chosen[i]), beta * (new_rejected[i] - ref_rejected[i])

    compare(
        lambda c, r: losses.dpo_loss(
            c, r, np.asarray(ref_chosen), np.asarray(ref_rejected), np.asarray(WEIGHT), beta=beta, label_smoothing=smoothing
        ),
        lambda c, r, i: oracle_others.dpo(c, r, ref_chosen[i], ref_rejected[i], beta, smoothing),
        [new_chosen, new_rejected],
        {
            "pair_accuracy": lambda i: 0.5 if i == 2 else float(rewards(i)[0] > rewards(i)[1]),
            "reward_margin": lambda i: rewards(i)[0] - rewards(i)[1],
            "chosen_reward": lambda i: rewards(i)[0],
            "rejected_reward": lambda i: rewards(i)[1],
        },
    )


def test_dpo_s_defaults_and_its_reference(losses):
    values = [np.array([x]) for x in (-3.0, -5.0, -4.0, -4.0)]
    np.testing.assert_allclose(losses.dpo_loss(*values, np.ones(1))[0], np.log1p(np.exp(-0.2)), rtol=1e-6)
    for gradient in jax.grad(lambda c, r: losses.dpo_loss(*values[:2], c, r, np.ones(1))[0], (0, 1))(*values[2:]):
        assert (gradient == 0).all()


@pytest.mark.parametrize("far", [1e4, 1e30])
def test_scores_far_apart_and_nothing_that_counts(losses, far):
    high, low, one = jnp.float32([far, -far, far]), jnp.float32([-far, far, far]), jnp.float32([1, 1, 1])
    functions = {
        "pairwise": lambda a, b, w: losses.pairwise_reward_loss(a, b, w, margin=1.0),
        "pointwise": lambda a, b, w: losses.pointwise_reward_loss(a, (b > 0).astype(jnp.float32), w),
        "dpo": lambda a, b, w: losses.dpo_loss(a, b, low, high, w),
        "smooth dpo": lambda a, b, w: losses.dpo_loss(a, b, high, low, w, label_smoothing=0.1),
    }
    for name, function in functions.items():
        run = checks.differentiated(function)
        for a, b in ((high, low), (low, high)):
            (loss, metrics), gradient = run(a, b, one)
            assert jnp.isfinite(loss) and jnp.isfinite(gradient).all(), name
            assert all(jnp.isfinite(v) for v in metrics.values()), name
        for junk in (jnp.nan, jnp.inf):
            (loss, metrics), gradient = run(junk * one, junk * one, 0 * one)
            assert loss == 0 and (gradient == 0).all() and all(v == 0 for v in metrics.values()), name


def test_half_precision_is_computed_with_in_float32(losses):
    rng = np.random.default_rng(0)
    chosen, rejected = (jnp.bfloat16(rng.normal(0, 3, 64)) for _ in range(2))
    weight = np.full(64, 1 / 64)
    for function in (
        lambda a, b: losses.pairwise_reward_loss(a, b, weight)[0],
        lambda a, b: losses.pointwise_reward_loss(a, b > 0, weight)[0],
        lambda a, b: losses.dpo_loss(a, b, b, a, weight)[0],
    ):
        function = jax.jit(function)
        half = function(chosen, rejected)
        assert half.dtype == jnp.float32
        np.testing.assert_allclose(half, function(jnp.float32(chosen), jnp.float32(rejected)), rtol=1e-6)


def test_bad_input_is_named(losses):
    two, three = np.ones(2), np.ones(3)
    for call, words in (
        (lambda: losses.pairwise_reward_loss(two, three, two), r"rejected has shape \(3,\), chosen \(2,\)"),
        (lambda: losses.pairwise_reward_loss(two, two, three), "weight has shape"),
        (lambda: losses.pairwise_reward_loss(two, two, two, margin=three), "broadcast"),
        (lambda: losses.pointwise_reward_loss(two, three, two), "labels has shape"),
        (lambda: losses.pointwise_reward_loss(two, two, three), "weight has shape"),
        (lambda: losses.dpo_loss(two, three, two, two, two), "rejected_logprobs has shape"),
        (lambda: losses.dpo_loss(two, two, three, two, two), "ref_chosen_logprobs has shape"),
        (lambda: losses.dpo_loss(two, two, two, three, two), "ref_rejected_logprobs has shape"),
        (lambda: losses.dpo_loss(two, two, two, two, three), "weight has shape"),
        (lambda: losses.dpo_loss(two, two, two, two, two, beta=0.0), "beta must be positive, but is 0.0"),
        (lambda: losses.dpo_loss(two, two, two, two, two, label_smoothing=0.5), r"\[0, 0.5\), but is 0.5"),
        (lambda: losses.dpo_loss(two, two, two, two, two, label_smoothing=-0.1), "label_smoothing must lie"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
