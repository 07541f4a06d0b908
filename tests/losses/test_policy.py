"""The policy losses against the oracle: every part, compositions of them, their gradients and their metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks, oracle_policy
from losskit.algorithms import ALGORITHMS
from losskit.batches import lay_out, one_per_row, random_sequences, weigh

import r1jax.losses
from r1jax import config

FEW = checks.sample_of_compositions(28)
PLAIN = {**checks.NUMBERS, "kl": "none", "kl_coefficient": 0.0}


@pytest.mark.parametrize("choice", FEW, ids=checks.name_of)
def test_compositions_are_the_oracle_s(losses, choice):
    checks.composition(losses, choice, seed=FEW.index(choice) % 5)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_more_compositions_are_the_oracle_s(losses, part):
    for i, choice in enumerate(checks.sample_of_compositions(320, seed=1)[part::8]):
        checks.composition(losses, choice, seed=i)


@pytest.mark.long
def test_every_composition_is_the_oracle_s(losses):
    for i, choice in enumerate(checks.COMPOSITIONS):
        checks.composition(losses, choice, seed=i % 7)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_published_algorithms_are_the_oracle_s(losses, algorithm):
    checks.composition(losses, ALGORITHMS[algorithm][0], seed=5)


@pytest.mark.parametrize(
    "choice",
    [{}, {"ratio": "sequence"}, {"ratio": "geometric", "surrogate": "none"}, {"surrogate": "cispo"}, {"surrogate": "sapo"}],
    ids=str,
)
@pytest.mark.parametrize("kl", ["k1", "k3_unbiased"])
def test_without_old_log_probabilities_they_are_the_policy_s_own(losses, choice, kl):
    checks.composition(losses, {**checks.NUMBERS, **choice, "kl": kl, "off_policy_delta": 0.1}, on_policy=True)


def test_the_defaults_are_the_documented_ones(losses):
    assert dataclasses.asdict(losses.PolicyLoss()) == oracle_policy.DEFAULTS
    checks.composition(losses, {})


def test_the_recipe_s_keys_are_the_loss_s_fields():
    fields = [[(f.name, f.default) for f in dataclasses.fields(c)] for c in (r1jax.losses.PolicyLoss, config.LossSettings)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("clip_high", [-1.0, -0.01, 0.0])
def test_clip_high_below_zero_means_clip_low(losses, clip_high):
    checks.composition(losses, {**PLAIN, "clip_high": clip_high})
    assert losses.PolicyLoss(clip_low=0.3, clip_high=clip_high).bounds == (0.3, 0.3 if clip_high < 0 else 0.0)


def test_the_random_sequences_meet_every_bound():
    shares = checks.met([{**PLAIN, "correction": "mask", "off_policy_delta": 0.15}])
    assert min(shares[name] for name in ("clip_low", "clip_high", "masked", "kl_ref", "sampler_trainer_mean")) > 0.03
    assert shares["masked"] < 0.9


@pytest.mark.parametrize("choice", [FEW[0], FEW[1], {**PLAIN, "surrogate": "cispo"}, {**PLAIN, "ratio": "sequence_token"}])
def test_the_oracle_s_own_derivatives_are_its_central_differences(choice):
    """The complex step that the oracle takes, against real differences with what is stopped held still."""
    sequences = random_sequences(2, count=4)
    weigh(sequences)
    gradients = oracle_policy.policy_loss(sequences, choice)[2]
    c = {**oracle_policy.DEFAULTS, **choice}
    for s, gradient in zip(sequences, gradients):
        for t in range(len(s)):
            sides = []
            for step in (1e-6, -1e-6):
                new = [x + step * (j == t) for j, x in enumerate(s.logprobs)]
                values, _ = oracle_policy.token_losses(s, new, s.logprobs, s.old_logprobs, c)
                sides.append(sum(w * oracle_policy.real(v) for w, v in zip(s.weight, values)))
            assert abs((sides[0] - sides[1]) / 2e-6 - gradient[t]) < 1e-7


# ------------------------------------------------------------------------------------------------ by hand
def test_one_token_of_each_surrogate_by_hand(losses):
    """Numbers that a reader can check: ratio 2 (log-ratio ln 2) and ratio 1/2, advantages 1 and -1."""
    low, high, grpo_loss = 0.2, 0.3, jax.jit(losses.grpo_loss, static_argnames="config")
    cases = {  # (ratio, advantage) -> objective
        "clip": {(2, 1): 1.3, (2, -1): -2.0, (0.5, 1): 0.5, (0.5, -1): -0.8},
        "dual_clip": {(2, 1): 1.3, (2, -1): -1.5, (0.5, 1): 0.5, (0.5, -1): -0.8},
        "cispo": {(2, 1): 1.3 * np.log(0.4), (2, -1): -1.3 * np.log(0.4), (0.5, 1): 0.8 * np.log(0.1)},
        "sapo": {(2, 1): 4 / (1 + np.exp(-1)), (0.5, -1): -2 / (1 + np.exp(1.0))},
        "none": {(2, 1): 2.0, (2, -1): -2.0, (0.5, 1): 0.5},
    }
    for surrogate, table in cases.items():
        config = losses.PolicyLoss(
            surrogate=surrogate, clip_low=low, clip_high=high, dual_clip=1.5, tau_negative=2.0, kl="none"
        )
        for (ratio, advantage), objective in table.items():
            new, old = np.log([[0.2 * ratio]]), np.log([[0.2]])
            loss, _ = grpo_loss(new, old, np.array([[advantage]]), np.ones((1, 1)), config=config)
            np.testing.assert_allclose(loss, -objective, rtol=1e-6, err_msg=f"{surrogate} {ratio} {advantage}")


def test_a_ratio_on_the_bound_is_not_clipped(losses):
    for advantage, ratio in ((1.0, 1.5), (-1.0, 0.5)):
        value, clipped = losses.clipped_surrogate(jnp.float32([ratio]), jnp.float32([advantage]), 0.5, 0.5)
        assert value[0] == ratio * advantage and not clipped[0]


def test_sequence_ratio_and_geometric_mean_by_hand(losses):
    old, new = np.log([[0.1, 0.1, 0.1, 0.5]]), np.log([[0.2, 0.1, 0.4, 0.3]])
    counted, index = np.array([[True, True, True, False]]), np.array([[7, 7, 7, 7]])
    np.testing.assert_allclose(losses.sequence_ratio(new, old, counted, index), 2.0, rtol=1e-6)  # (2 * 1 * 4) ** (1/3)
    ratio, clipped = losses.geometric_ratio(new, old, np.ones((1, 4)), 0.4, np.log(2.0), counted, index)
    np.testing.assert_allclose(ratio, 4 ** (1 / 3), rtol=1e-6)  # 4 is cut to 2
    assert clipped.tolist() == [[False, False, True, False]]
    two = np.array([[0, 0, 1, 1]])
    np.testing.assert_allclose(losses.sequence_mean(np.array([[1.0, 3, 5, 9]]), counted, two), [[2, 2, 5, 5]])
    np.testing.assert_allclose(losses.sequence_sum(np.array([[1.0, 3, 5, 9]]), counted, two), [[4, 4, 5, 5]])
    np.testing.assert_allclose(losses.sequence_mean(np.array([[1.0, 3, 5, 9]]), ~counted & counted), 0)


def test_sums_over_sequences_on_a_mesh_of_either_kind(losses):
    values, index = np.arange(16.0).reshape(8, 2), np.array([[0, 0], [1, 2]] * 4)
    expected = np.where(index == 0, values.sum(1, keepdims=True), values)
    for kind in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):  # the latter is jax.make_mesh's default
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        given = jax.device_put((np.float32(values), values >= 0, index), place)
        np.testing.assert_allclose(jax.jit(losses.sequence_sum)(*given), expected)


def test_estimators_by_hand(losses):
    new, ref, old = np.log(0.2), np.log(0.1), np.log(0.4)
    np.testing.assert_allclose(losses.k1(new, ref), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.k2(new, ref), np.log(2) ** 2 / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.k3(new, ref), 0.5 + np.log(2) - 1, rtol=1e-6)
    np.testing.assert_allclose(losses.k3_unbiased(new, ref, old), 0.5 * (0.5 + np.log(2) - 1), rtol=1e-6)


def test_the_unbiased_estimator_has_the_gradient_of_the_divergence_itself(losses):
    """Over a whole vocabulary: E_old[r k3] is KL(policy || reference), value and gradient; k3 alone is not."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        logits, old, ref = (jnp.asarray(rng.normal(size=5)) for _ in range(3))
        old, ref = jax.nn.log_softmax(old), jax.nn.log_softmax(ref)

        def exact(x):
            new = jax.nn.log_softmax(x)
            return jnp.sum(jnp.exp(new) * (new - ref))

        def estimated(x, estimator):
            return jnp.sum(jnp.exp(old) * estimator(jax.nn.log_softmax(x)))

        unbiased = jax.value_and_grad(lambda x: estimated(x, lambda new: losses.k3_unbiased(new, ref, old)))(logits)
        for one, other in zip(unbiased, jax.value_and_grad(exact)(logits)):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        biased = jax.grad(lambda x: estimated(x, lambda new: losses.k3(new, ref)))(logits)
        assert np.abs(biased - jax.grad(exact)(logits)).max() > 0.01


# ------------------------------------------------------------------------------------------------ properties
def test_one_policy_has_ratio_one_no_clipping_and_the_policy_gradient(losses):
    sequences = random_sequences(2)
    weigh(sequences)
    arrays = {k: v.astype(np.float32) for k, v in lay_out(sequences, one_per_row(sequences)).items()}
    config = losses.PolicyLoss(clip_low=0.0, clip_high=0.0, kl="none")  # the tightest bound clips nothing at 1
    for old in (arrays["logprobs"], None):

        def loss(new, old=old):
            return losses.grpo_loss(new, old, arrays["advantages"], arrays["token_weight"], config=config)

        (_, metrics), gradient = checks.differentiated(loss)(jnp.asarray(arrays["logprobs"]))
        assert metrics["ratio_max"] == 1 and metrics["kl_old"] == 0
        np.testing.assert_allclose(metrics["ratio_mean"], 1, rtol=1e-6)  # two sums, in any order
        assert metrics["clip_low"] == 0 and metrics["clip_high"] == 0 and metrics["clamped"] == 0
        expected = np.where(arrays["token_weight"] > 0, -arrays["token_weight"] * arrays["advantages"], 0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)


def test_centred_advantages_of_one_group_on_policy_give_loss_zero(losses):
    """trl#2995: beta 0 and one update per rollout must report 0, whatever the lengths."""
    advantages = losses.group_advantages(np.array([[1.0, 0.0, 0.0, 1.0, 2.0]]))[0]
    mask = np.arange(12)[None] < np.array([[3], [9], [12], [1], [6]])
    index = np.where(mask, np.arange(5)[:, None], -1)
    weight = losses.token_weights(mask, index)
    grpo_loss = jax.jit(losses.grpo_loss, static_argnames="config")
    loss, _ = grpo_loss(np.zeros(mask.shape), None, advantages[:, None] * mask, weight, config=losses.PolicyLoss(kl="none"))
    assert abs(loss) < 1e-7


def test_no_gradient_to_anything_but_the_policy(losses):
    sequences = random_sequences(2)
    weigh(sequences)
    arrays = {k: jnp.float32(np.nan_to_num(v)) for k, v in lay_out(sequences, one_per_row(sequences)).items()}
    names = ("old_logprobs", "advantages", "ref_logprobs", "sampler_logprobs")

    def loss(old, advantages, ref, sampler, config):
        return losses.grpo_loss(
            arrays["logprobs"],
            old,
            advantages,
            arrays["token_weight"],
            ref_logprobs=ref,
            sampler_logprobs=sampler,
            config=config,
        )[0]

    for choice in ({}, {"correction": "truncate", "surrogate": "cispo"}, {"kl": "k3_unbiased", "correction": "mask"}):
        config = losses.PolicyLoss(**choice)
        for gradient in jax.jit(jax.grad(loss, (0, 1, 2, 3)), static_argnums=4)(*(arrays[n] for n in names), config):
            assert (gradient == 0).all()


def test_gspo_and_gspo_token_have_one_gradient(losses):
    sequences = random_sequences(8)
    weigh(sequences)
    _, arrays = checks.standard(sequences)
    one, other = (
        checks.value_and_gradients(losses, arrays, losses.PolicyLoss(ratio=ratio, kl="none"))
        for ratio in ("sequence", "sequence_token")
    )
    np.testing.assert_allclose(one[1], other[1], rtol=1e-12, atol=1e-15)


def test_a_part_of_one_s_own_stands_in_a_name_s_place(losses):
    """Built again from outside, every part gives what its name gives."""
    sequences = random_sequences(1)
    weigh(sequences)
    _, arrays = checks.standard(sequences)

    def ratio(tokens, config):
        return losses.token_ratio(tokens.logprobs, tokens.old_logprobs), jnp.zeros(tokens.logprobs.shape, bool)

    def surrogate(ratio, tokens, config):
        return losses.clipped_surrogate(ratio, tokens.advantages, *config.bounds)

    def correction(tokens, config):
        return jnp.minimum(jnp.exp(tokens.old_logprobs - tokens.sampler_logprobs), 2.0)

    def kl(new, ref, old):
        return losses.k2(new, ref)

    parts = {"ratio": ratio, "surrogate": surrogate, "correction": correction, "kl": kl}
    names = {"ratio": "token", "surrogate": "clip", "correction": "truncate", "kl": "k2"}
    one, other = (
        checks.value_and_gradients(losses, arrays, losses.PolicyLoss(**choice, kl_coefficient=0.2, correction_high=2.0))
        for choice in (parts, names)
    )
    np.testing.assert_allclose(one[0], other[0], rtol=1e-12)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-12, atol=1e-15)
    assert one[3] == pytest.approx(other[3], rel=1e-12)


def test_a_nan_that_counts_is_not_hidden(losses):
    new = jnp.float32([[-1.0, jnp.nan]])
    grpo_loss = jax.jit(losses.grpo_loss, static_argnames="config")
    loss, _ = grpo_loss(new, jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2)), config=losses.PolicyLoss(kl="none"))
    assert jnp.isnan(loss)
