"""Cross-entropy and multi-token prediction against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks, oracle_others
from losskit.batches import by_sequence, lay_out, packed, random_sequences, weigh


@pytest.mark.parametrize("rule", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("width, side", [(10, "right"), (24, "between")])
def test_cross_entropy(losses, rule, width, side):
    sequences = random_sequences(0)
    weigh(sequences, rule, left_out=(2,))
    layout = packed(sequences, width, side=side)
    arrays = lay_out(sequences, layout)
    logprobs, weights = ([x for s in sequences for x in getattr(s, name)] for name in ("logprobs", "weight"))
    expected = oracle_others.cross_entropy(logprobs, weights)
    with jax.enable_x64(True):

        def loss(x):
            return losses.sft_loss(x, arrays["token_weight"], entropy=arrays["entropy"])

        (found, metrics), gradient = checks.differentiated(loss)(jnp.asarray(arrays["logprobs"]))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(by_sequence(gradient, sequences, layout), -np.asarray(weights), rtol=1e-12)
        entropy = sum(w * h for s in sequences for w, h in zip(s.weight, s.entropy)) / sum(weights)
        figures = {"loss": expected, "cross_entropy": expected / sum(weights), "entropy": entropy}
        figures |= {"weight": sum(weights), "tokens": sum(w > 0 for w in weights)}
        assert {name: float(v) for name, v in metrics.items()} == pytest.approx(figures, rel=1e-12)


def test_cross_entropy_without_entropy_in_float32(losses):
    new, weight = -np.arange(6.0).reshape(2, 3), np.array([[0, 0.1, 0.2], [0, 0, 0.3]])
    loss, metrics = losses.sft_loss(new, weight)
    np.testing.assert_allclose(loss, 0.1 * 1 + 0.2 * 2 + 0.3 * 5, rtol=1e-6)
    assert loss.dtype == jnp.float32 and metrics.keys() == {"cross_entropy", "tokens", "weight", "loss"}


def test_bfloat16_log_probabilities_are_summed_in_float32(losses):
    new = jnp.bfloat16(np.random.default_rng(0).normal(size=(4, 256)))
    loss, _ = losses.sft_loss(new, np.full((4, 256), 1 / 1024))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, -np.asarray(new, np.float64).mean(), rtol=1e-5)


@pytest.mark.parametrize("depths", [1, 2, 3])
@pytest.mark.parametrize("width", [10, 24])
def test_multi_token_prediction(losses, depths, width):
    """SFT on whole sequences: positions count from the prompt's first token."""
    rng = np.random.default_rng(depths)
    sequences = random_sequences(1)
    weigh(sequences, "token_mean", left_out=(3,))
    layout = packed(sequences, width)
    arrays = lay_out(sequences, layout)
    said = np.full((depths, *arrays["logprobs"].shape), np.nan)
    positions = np.zeros(arrays["logprobs"].shape, int)
    expected = total = 0.0
    slopes = []
    for i, s in enumerate(sequences):
        place = (arrays["sequence_index"] == i) & (arrays["completion_mask"] > 0)
        rows = -rng.exponential(1.0, (depths, len(s)))
        said[:, place] = rows
        positions[place] = s.prompt + np.arange(len(s))
        one, weight = oracle_others.mtp(rows.tolist(), s.weight, positions[place].tolist(), 0.3)
        expected, total = expected + one, total + weight
        slopes.append(
            [[-0.3 / depths * w * (p >= 2 + k) for w, p in zip(s.weight, positions[place])] for k in range(depths)]
        )
    with jax.enable_x64(True):

        def loss(x):
            return losses.mtp_loss(x, arrays["token_weight"], positions, coefficient=0.3)

        (found, metrics), gradient = checks.differentiated(loss)(jnp.asarray(said))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        for k in range(depths):
            np.testing.assert_allclose(
                by_sequence(gradient[k], sequences, layout), np.concatenate([s[k] for s in slopes]), rtol=1e-12
            )
        np.testing.assert_allclose(metrics["weight"], total, rtol=1e-12)
        np.testing.assert_allclose(metrics["mtp_cross_entropy"], expected / total * depths / 0.3, rtol=1e-12)
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-12)
        said_of = [[p > k for p in positions[(arrays["token_weight"] > 0)]] for k in range(1, depths + 1)]
        assert metrics["tokens"] == np.sum(said_of)


def test_depth_one_says_nothing_of_the_first_two_tokens(losses):
    loss, metrics = losses.mtp_loss(-np.ones((1, 1, 4)), np.ones((1, 4)), np.arange(4)[None], coefficient=1.0)
    assert loss == 2 and metrics["tokens"] == 2 and metrics["mtp_cross_entropy"] == 1


def test_nothing_that_counts_is_nothing(losses):
    for junk in (np.nan, np.inf, -np.inf):
        new, zero = jnp.full((2, 3), junk), np.zeros((2, 3))
        for function in (
            lambda x, zero=zero: losses.sft_loss(x, zero, entropy=zero * np.nan),
            lambda x, zero=zero: losses.mtp_loss(x[None], zero, zero + 9, coefficient=0.1),
            lambda x, zero=zero: losses.mtp_loss(x[None], zero + 1, zero, coefficient=0.1),
        ):
            (loss, metrics), gradient = checks.differentiated(function)(new)
            assert loss == 0 and (gradient == 0).all() and all(value == 0 for value in metrics.values())
    assert losses.sft_loss(np.zeros((0, 3)), np.zeros((0, 3)))[0] == 0


def test_an_impossible_token_costs_without_bound_but_its_gradient_is_finite(losses):
    loss, gradient = jax.value_and_grad(lambda x: losses.sft_loss(x, np.ones((1, 2)))[0])(jnp.float32([[-jnp.inf, -1]]))
    assert loss == jnp.inf and (gradient == -1).all()


def test_shapes_are_refused_by_name(losses):
    ones = np.ones((2, 3))
    for call, words in (
        (lambda: losses.sft_loss(ones, ones[0]), r"token_weight has shape \(3,\), logprobs \(2, 3\)"),
        (lambda: losses.sft_loss(ones, ones, entropy=ones.T), "entropy has shape"),
        (lambda: losses.mtp_loss(ones, ones, ones, coefficient=0.1), r"\[depths, B, T\], but has shape \(2, 3\)"),
        (lambda: losses.mtp_loss(ones[None], ones.T, ones, coefficient=0.1), "token_weight has shape"),
        (lambda: losses.mtp_loss(ones[None], ones, ones.T, coefficient=0.1), "positions has shape"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# ------------------------------------------------------------------------------------------------ metrics of micro-steps
def test_metrics_of_micro_steps_are_the_update_s(losses):
    parts = [
        {"loss": 1.0, "weight": 0.25, "tokens": 3.0, "clamped": 1.0, "ratio_max": 2.0, "entropy": 4.0},
        {"loss": 2.0, "weight": 0.75, "tokens": 5.0, "clamped": 0.0, "ratio_max": 1.5, "entropy": 8.0},
        {"loss": 0.0, "weight": 0.0, "tokens": 0.0, "clamped": 0.0, "ratio_max": 0.0, "entropy": 0.0},
    ]
    expected = {"loss": 3.0, "weight": 1.0, "tokens": 8.0, "clamped": 1.0, "ratio_max": 2.0, "entropy": 7.0}
    assert losses.merge_metrics(iter(parts)) == expected
    assert losses.merge_metrics([{k: np.float32(v) for k, v in part.items()} for part in parts]) == expected
    assert losses.merge_metrics(parts[2:]) == parts[2]


def test_micro_steps_that_gave_different_metrics_are_refused(losses):
    with pytest.raises(ValueError, match="different metrics.*kl_ref"):
        losses.merge_metrics([{"weight": 1.0}, {"weight": 1.0, "kl_ref": 0.1}])
    with pytest.raises(ValueError, match="without micro-steps"):
        losses.merge_metrics([])


def test_weighted_mean(losses):
    values, weight = jnp.float32([1.0, jnp.nan, 4.0]), jnp.float32([0.5, 0.0, 1.0])
    np.testing.assert_allclose(losses.weighted_mean(values, weight), 3.0, rtol=1e-6)
    assert losses.weighted_mean(values, 0 * weight) == 0
