"""The GRPO loss against the oracle, by finite differences, at its edges, and against its own mistakes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import config as recipe
from r1jax import losses
from r1jax.losses import PolicyLoss, group_advantages, merge_metrics, sft_loss, token_weights

grpo_loss = jax.jit(losses.grpo_loss, static_argnames="config")  # one small program instead of fifty


def sequences(seed, count=7, longest=6, spread=0.4):
    """Random sequences with their weights under the sequence mean; advantages of both signs, one of them 0."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    out = []
    for n in lengths:
        new = -rng.exponential(1.0, n)
        old, ref = new + rng.normal(0, spread, n), new + rng.normal(0, spread, n)
        out.append({"new": new, "old": old, "ref": ref, "advantage": rng.normal(), "weight": 1 / count / n})
    out[0]["advantage"] = 0.0
    return out


def pack(sequences, order, row_length, pad_rows=0):
    """Arrays ``[B, T]`` of the sequences in this order, each after one prompt token; junk in padding, NaN in places."""
    rows, used = [], row_length
    for i in order:
        n = len(sequences[i]["new"]) + 1
        if used + n > row_length:
            rows.append([])
            used = 0
        rows[-1].append((i, used + 1))
        used += n
    shape = (len(rows) + pad_rows, row_length)
    arrays = {name: np.full(shape, np.nan) for name in ("new", "old", "ref", "advantage")}
    arrays["weight"] = np.zeros(shape)
    index = np.full(shape, -1)
    for b, row in enumerate(rows):
        for i, start in row:
            place = b, slice(start, start + len(sequences[i]["new"]))
            index[place] = i
            for name in arrays:
                arrays[name][place] = sequences[i][name]
    return arrays, index


@functools.partial(jax.jit, static_argnames="config")
def loss_of(arrays, config, new=None):
    return grpo_loss(
        arrays["new"] if new is None else new,
        arrays["old"],
        arrays["advantage"],
        arrays["weight"],
        ref_logprobs=arrays["ref"],
        config=config,
    )


CONFIGS = [
    PolicyLoss(),
    PolicyLoss(clip_low=0.1, clip_high=0.3, kl="none"),
    PolicyLoss(clip_low=0.05, clip_high=-1.0, kl="k1", kl_coefficient=0.5),
    PolicyLoss(clip_low=10.0, clip_high=10.0, kl="k2", kl_coefficient=0.1),
    PolicyLoss(clip_low=0.0, clip_high=0.0, kl="k3", kl_coefficient=0.04),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_gradient_and_metrics_are_the_oracle_s(oracle, config, seed):
    batch = sequences(seed)
    high = config.clip_low if config.clip_high < 0 else config.clip_high
    loss, gradients, metrics = oracle.grpo(batch, config.clip_low, high, config.kl, config.kl_coefficient)
    arrays, index = pack(batch, range(len(batch)), 9)
    with jax.enable_x64(True):
        (found, figures), gradient = jax.value_and_grad(lambda new: loss_of(arrays, config, new), has_aux=True)(
            jnp.asarray(arrays["new"])
        )
        np.testing.assert_allclose(found, loss, rtol=1e-12, atol=1e-14)
        for i, expected in enumerate(gradients):
            np.testing.assert_allclose(gradient[index == i], expected, rtol=1e-12, atol=1e-15)
        assert (gradient[index < 0] == 0).all()
        for name, expected in metrics.items():
            np.testing.assert_allclose(figures[name], expected, rtol=1e-12, atol=1e-15, err_msg=name)
        assert figures["tokens"] == sum(len(s["new"]) for s in batch) and figures["clamped"] == 0


def test_clipping_happens_in_these_examples():
    _, figures = loss_of(pack(sequences(0, count=20), range(20), 9)[0], PolicyLoss(clip_low=0.1, clip_high=0.1))
    assert figures["clip_low"] > 0.05 and figures["clip_high"] > 0.05


@pytest.mark.parametrize("config", CONFIGS)
def test_finite_differences(config):
    arrays, index = pack(sequences(5, spread=0.3), range(7), 9)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda new: loss_of(arrays, config, new)[0])(jnp.asarray(arrays["new"]))
        for place in np.argwhere(index >= 0):
            place, step = tuple(place), 1e-6
            ratio = np.exp(arrays["new"][place] - arrays["old"][place])
            if min(abs(ratio - 1 + config.clip_low), abs(ratio - 1 - config.clip_high)) < 1e-4:
                continue  # a kink
            high, low = arrays["new"].copy(), arrays["new"].copy()
            high[place] += step
            low[place] -= step
            slope = (loss_of(arrays, config, high)[0] - loss_of(arrays, config, low)[0]) / (2 * step)
            assert abs(slope - gradient[place]) < 1e-8


@pytest.mark.parametrize("rule", ["sequence_mean", "token_mean", "constant_length"])
@pytest.mark.parametrize("row_length, pad_rows, micro", [(7, 0, 1), (9, 3, 2), (60, 1, 1), (60, 0, 5)])
def test_invariant_1_microbatches_order_packing_padding(rule, row_length, pad_rows, micro):
    """Loss and gradient to 1e-6 of the sum of weighted token losses and of the gradient's norm, in float32."""
    batch, config = sequences(11, count=9), PolicyLoss(kl_coefficient=0.05)
    results = []
    for order, width, empty, size in (
        (range(9), 7, 0, 100),
        (np.random.default_rng(1).permutation(9), row_length, pad_rows, micro),
    ):
        arrays, index = pack(batch, order, width, empty)
        arrays["weight"] = token_weights(index >= 0, index, rule=rule, length=8)
        arrays = {name: np.float32(array) for name, array in arrays.items()}
        loss, scale, gradient, parts = 0.0, 0.0, np.zeros(arrays["new"].shape), []
        for start in range(0, len(index), size):
            some = {name: array[start : start + size] for name, array in arrays.items()}
            (value, metrics), slope = jax.value_and_grad(lambda new, some=some: loss_of(some, config, new), has_aux=True)(
                jnp.asarray(some["new"])
            )
            loss += float(value)
            gradient[start : start + size] = slope
            parts.append(jax.device_get(metrics))
            scale += float(np.nansum(np.abs(some["weight"] * some["advantage"] * np.exp(some["new"] - some["old"]))))
        results.append((loss, scale, [gradient[index == i] for i in range(9)], merge_metrics(parts)))
    (loss, scale, gradient, metrics), (other_loss, _, other_gradient, other_metrics) = results
    assert abs(loss - other_loss) < 1e-6 * scale
    norm = np.linalg.norm(np.concatenate(gradient))
    assert np.linalg.norm(np.concatenate(gradient) - np.concatenate(other_gradient)) < 1e-6 * norm
    for name, value in metrics.items():
        assert abs(value - other_metrics[name]) <= 1e-6 * max(1, abs(value)), name


def test_one_policy_has_ratio_one_no_clipping_and_the_policy_gradient():
    arrays, index = pack(sequences(2), range(7), 9)
    config = PolicyLoss(clip_low=0.0, clip_high=0.0, kl="none")  # the tightest bound clips nothing at 1
    for old in (arrays["new"], None):
        loss, metrics = grpo_loss(arrays["new"], old, arrays["advantage"], arrays["weight"], config=config)
        assert metrics["ratio_mean"] == 1 and metrics["ratio_max"] == 1 and metrics["kl_old"] == 0
        assert metrics["clip_low"] == 0 and metrics["clip_high"] == 0 and metrics["clamped"] == 0
        gradient = jax.grad(
            lambda new, old=old: grpo_loss(new, old, arrays["advantage"], arrays["weight"], config=config)[0]
        )(jnp.float32(arrays["new"]))
        expected = np.where(index >= 0, -arrays["weight"] * arrays["advantage"], 0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)


def test_centred_advantages_of_one_group_on_policy_give_loss_zero():
    """trl#2995: beta 0 and one update per rollout must report 0, whatever the lengths."""
    advantages = group_advantages(np.array([[1.0, 0.0, 0.0, 1.0, 2.0]]))[0]
    mask = np.arange(12)[None] < np.array([[3], [9], [12], [1], [6]])
    index = np.where(mask, np.arange(5)[:, None], -1)
    weight = token_weights(mask, index)
    loss, _ = grpo_loss(np.zeros(mask.shape), None, advantages[:, None] * mask, weight, config=PolicyLoss(kl="none"))
    assert abs(loss) < 1e-7


def test_minimising_moves_towards_good_samples_and_towards_the_reference():
    """verl a65c915 once maximised the KL divergence."""
    new, weight = np.log([[0.5, 0.5]]), np.ones((1, 2))
    gradient = jax.grad(lambda x: grpo_loss(x, None, np.array([[1.0, -1.0]]), weight, config=PolicyLoss(kl="none"))[0])
    assert gradient(new)[0, 0] < 0 < gradient(new)[0, 1]
    ref = np.log([[0.6, 0.4]])
    for kl in ("k2", "k3"):
        config = PolicyLoss(kl=kl, kl_coefficient=1.0)
        gradient = jax.grad(lambda x, c=config: grpo_loss(x, None, 0 * new, weight, ref_logprobs=ref, config=c)[0])(new)
        assert gradient[0, 0] < 0 < gradient[0, 1], kl


def test_no_gradient_to_anything_but_the_policy():
    arrays, _ = pack(sequences(2), range(7), 60)
    arrays = {name: np.nan_to_num(array) for name, array in arrays.items()}

    def loss(old, ref, advantage):
        return loss_of({**arrays, "old": old, "ref": ref, "advantage": advantage}, PolicyLoss())[0]

    for gradient in jax.grad(loss, (0, 1, 2))(arrays["old"], arrays["ref"], arrays["advantage"]):
        assert (gradient == 0).all()


def test_weightless_rows_are_exactly_zero_even_when_they_hold_nan():
    junk = np.full((2, 3), np.nan)
    for value in (junk, np.full((2, 3), np.inf)):
        (loss, metrics), gradient = jax.value_and_grad(
            lambda x, v=value: grpo_loss(
                x, v, v, np.zeros((2, 3)), ref_logprobs=v, sampler_logprobs=v, entropy=v, config=PolicyLoss()
            ),
            has_aux=True,
        )(jnp.float32(value))
        assert loss == 0 and (gradient == 0).all() and all(v == 0 for v in metrics.values())
    assert sft_loss(junk, np.zeros((2, 3)))[0] == 0


def test_an_advantage_of_zero_leaves_the_penalty_alone():
    arrays, index = pack(sequences(3), range(7), 9)
    arrays["advantage"][:] = 0
    loss, _ = loss_of(arrays, PolicyLoss(kl="none"))
    assert loss == 0
    loss, metrics = loss_of(arrays, PolicyLoss(kl="k3", kl_coefficient=0.3))
    np.testing.assert_allclose(loss, 0.3 * metrics["kl_ref"], rtol=1e-6)


@pytest.mark.parametrize("distance", [25.0, 200.0, 1e30])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_overflow_is_clamped_counted_and_finite(distance, sign, advantage):
    new = jnp.float32([[-1.0, -1.0, -1.0]])
    far = jnp.float32([[-1.0, -1.0 + sign * distance, -1.0]])
    weight, a = np.full((1, 3), 1 / 3), np.full((1, 3), advantage)
    for old, ref in ((far, new), (new, far), (far, far)):
        (loss, metrics), gradient = jax.value_and_grad(
            lambda x, o=old, r=ref: grpo_loss(x, o, a, weight, ref_logprobs=r, config=PolicyLoss(kl_coefficient=1.0)),
            has_aux=True,
        )(new)
        assert jnp.isfinite(loss) and jnp.isfinite(gradient).all() and metrics["clamped"] == 1
        assert all(jnp.isfinite(v) for v in metrics.values())


def test_a_nan_that_counts_is_not_hidden():
    new = jnp.float32([[-1.0, jnp.nan]])
    loss, _ = grpo_loss(new, jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2)), config=PolicyLoss(kl="none"))
    assert jnp.isnan(loss)


def test_the_sampler_is_compared_with_the_old_policy():
    arrays, index = pack(sequences(4), range(7), 9)
    difference = np.where(index == 3, -0.25, 0.0)
    _, metrics = grpo_loss(
        arrays["new"],
        arrays["old"],
        arrays["advantage"],
        arrays["weight"],
        sampler_logprobs=arrays["old"] + difference,
        entropy=np.where(index == 3, 2.0, 1.0),
        config=PolicyLoss(kl="none"),
    )
    share = arrays["weight"][index == 3].sum() / arrays["weight"].sum()
    np.testing.assert_allclose(metrics["sampler_trainer_mean"], 0.25 * share, rtol=1e-5)
    np.testing.assert_allclose(metrics["sampler_trainer_max"], 0.25, rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], 1 + share, rtol=1e-6)


def test_bfloat16_log_probabilities_are_summed_in_float32():
    rng = np.random.default_rng(0)
    new = jnp.bfloat16(rng.normal(size=(4, 256)))
    loss, _ = sft_loss(new, np.full((4, 256), 1 / 1024))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, -np.asarray(new, np.float64).mean(), rtol=1e-5)


def test_cross_entropy():
    new, weight = -np.arange(6.0).reshape(2, 3), np.array([[0, 0.1, 0.2], [0, 0, 0.3]])
    loss, metrics = sft_loss(new, weight, entropy=np.full((2, 3), 0.5))
    np.testing.assert_allclose(loss, 0.1 * 1 + 0.2 * 2 + 0.3 * 5, rtol=1e-6)
    np.testing.assert_allclose(metrics["cross_entropy"], 2.0 / 0.6, rtol=1e-6)
    assert metrics["tokens"] == 3 and metrics["entropy"] == 0.5
    gradient = jax.grad(lambda x: sft_loss(x, weight)[0])(jnp.float32(new))
    np.testing.assert_allclose(gradient, -weight, rtol=1e-6)


def test_micro_steps_that_gave_different_metrics_are_refused():
    with pytest.raises(ValueError, match="kl_ref"):
        merge_metrics([{"weight": 1.0}, {"weight": 1.0, "kl_ref": 0.1}])
    with pytest.raises(ValueError, match="without micro-steps"):
        merge_metrics([])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"advantages": np.zeros(3)}, r"advantages has shape \(3,\), logprobs \(1, 3\)"),
        ({"ref_logprobs": None}, "'k3' with coefficient 0.001 needs ref_logprobs"),
        ({"sequence_index": np.zeros((3, 1))}, "sequence_index has shape"),
    ],
)
def test_bad_input_is_named(change, words):
    ones = np.ones((1, 3))
    given = {"old_logprobs": ones, "advantages": ones, "token_weight": ones, "ref_logprobs": ones}
    with pytest.raises(ValueError, match=words):
        grpo_loss(ones, **{**given, **change})


@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"kl": "k4"}, "'k4' is unknown; known: none, k1, k2, k3"),
        ({"clip_low": -0.1}, "clip_low must not be negative"),
        ({"clip_high": float("nan")}, "clip_high must be a number"),
        ({"kl_coefficient": float("inf")}, "kl_coefficient must be finite"),
    ],
)
def test_a_bad_composition_is_refused(keywords, words):
    with pytest.raises(ValueError, match=words):
        PolicyLoss(**keywords)


def test_the_recipe_s_keys_are_the_loss_s_fields():
    fields = [[(f.name, f.default) for f in dataclasses.fields(c)] for c in (PolicyLoss, recipe.LossSettings)]
    assert fields[0] == fields[1]
