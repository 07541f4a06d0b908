"""The policy losses where something is missing, too large or impossible; and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks
from losskit.batches import NAMES, random_sequences, weigh

FEW = checks.sample_of_compositions(12, seed=3)


@pytest.mark.parametrize("choice", FEW, ids=checks.name_of)
def test_policies_as_far_apart_as_can_be(losses, choice):
    """Values, gradients and the count of cut log-ratios are the oracle's, and so finite."""
    checks.composition(losses, choice, sequences=checks.extreme_sequences())


def test_in_float32_they_are_finite_too(losses):
    everything_is_finite(losses, FEW[0], checks.extreme_sequences(), jax.jit)


@pytest.mark.slow
def test_more_compositions_are_finite_in_float32(losses):
    for choice in checks.sample_of_compositions(60, seed=4):
        everything_is_finite(losses, choice, checks.extreme_sequences())


@pytest.mark.long
def test_every_composition_is_finite_wherever_the_policies_are(losses):
    for choice in checks.COMPOSITIONS:
        everything_is_finite(losses, choice, checks.extreme_sequences())


def everything_is_finite(losses, choice, sequences, compiled=lambda function: function):
    _, arrays = checks.standard(sequences)
    arrays = {k: jnp.asarray(v, jnp.int32 if k == "sequence_index" else jnp.float32) for k, v in arrays.items()}

    def loss(logprobs, entropy):
        given = {name: arrays[name] for name in ("ref_logprobs", "sampler_logprobs", "sequence_index")}
        return losses.grpo_loss(
            logprobs,
            arrays["old_logprobs"],
            arrays["advantages"],
            arrays["token_weight"],
            entropy=entropy,
            config=losses.PolicyLoss(**choice),
            **given,
        )

    run = compiled(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (value, metrics), gradients = run(arrays["logprobs"], arrays["entropy"])
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)
    assert all(np.isfinite(v) for v in metrics.values()), metrics
    assert metrics["clamped"] > 3


def test_how_many_log_ratios_were_cut(losses):
    new = jnp.float32([[-1.0, -1.0, -1.0, -1.0, -1.0]])
    old = new + jnp.float32([[0, 25, -25, 19.9, 200]])
    ref, sampler = new.at[0, 0].add(-30), old.at[0, 3].add(-21)
    grpo_loss = jax.jit(losses.grpo_loss, static_argnames="config")
    for correction, expected in (("none", 4), ("mask", 5)):
        config = losses.PolicyLoss(correction=correction)
        _, metrics = grpo_loss(new, old, new, jnp.ones((1, 5)), ref_logprobs=ref, sampler_logprobs=sampler, config=config)
        assert metrics["clamped"] == expected
    _, metrics = grpo_loss(new, None, new, jnp.ones((1, 5)), config=losses.PolicyLoss(kl="none"))
    assert metrics["clamped"] == 0
    (loss, metrics), gradient = jax.value_and_grad(
        lambda x: losses.grpo_loss(
            x, x + 20.1, -new, jnp.ones((1, 5)), config=losses.PolicyLoss(surrogate="none", kl="none")
        ),
        has_aux=True,
    )(new)
    assert metrics["clamped"] == 5 and (gradient == 0).all()  # no gradient beyond the bound
    np.testing.assert_allclose(metrics["ratio_max"], np.exp(-20), rtol=1e-6)


@pytest.mark.parametrize("choice", [FEW[0], {}], ids=str)
def test_an_update_that_counts_nothing_is_exactly_nothing(losses, choice):
    """An empty completion, a row that is masked out, a micro-batch of padding: loss, gradients and every metric are 0."""
    index = np.array([[0, 0, 1], [-1, -1, -1]])

    def loss(new, entropy, array):
        return losses.grpo_loss(
            new, array, array, np.zeros((2, 3)), ref_logprobs=array, sampler_logprobs=array, sequence_index=index,
            entropy=entropy, config=losses.PolicyLoss(**choice),
        )  # fmt: skip

    run = checks.differentiated(loss, (0, 1))
    for junk in (np.nan, np.inf, -np.inf, 1.0):
        array = jnp.full((2, 3), junk, jnp.float32)
        (value, metrics), gradients = run(array, array, array)
        assert value == 0 and all((g == 0).all() for g in gradients) and all(v == 0 for v in metrics.values())


def test_no_rows_at_all(losses):
    none = np.zeros((0, 3))
    loss, metrics = jax.jit(losses.grpo_loss)(
        none, none, none, none, ref_logprobs=none, sampler_logprobs=none, sequence_index=np.zeros((0, 3), int)
    )
    assert loss == 0 and all(value == 0 for value in metrics.values())


def test_a_group_of_one_and_equal_rewards_teach_nothing(losses):
    advantages = losses.group_advantages(np.array([[1.0, 1.0], [3.0, np.nan]]), np.array([[True, True], [True, False]]))
    new = -jnp.ones((4, 3))
    for surrogate in ("clip", "dual_clip", "cispo", "sapo", "none"):
        config = losses.PolicyLoss(surrogate=surrogate, kl="none")

        def loss(x, config=config):
            return losses.grpo_loss(x, new - 0.3, jnp.repeat(advantages.reshape(-1, 1), 3, 1), new / -12, config=config)[0]

        value, gradient = jax.jit(jax.value_and_grad(loss))(new)
        assert value == 0 and (gradient == 0).all()


def test_whole_numbers_lists_and_numpy_are_read(losses):
    """Advantages of -1 and 1, weights of 0 and 1 and log-probabilities as numpy's float64 need no cast."""
    config = losses.PolicyLoss(kl="none")
    new, old = np.array([[-1.0, -2.0], [-0.5, -0.25]]), np.array([[-1.1, -2.0], [-0.5, -0.5]])
    A, weight = np.array([[1, 1], [-1, -1]]), np.array([[1, 1], [0, 1]])
    grpo_loss = jax.jit(losses.grpo_loss, static_argnames="config")
    floats = grpo_loss(new, old, A * 1.0, weight * 1.0, config=config)[0]
    for kind in (np.int8, jnp.int32):
        assert grpo_loss(new, old, A.astype(kind), weight.astype(kind), config=config)[0] == floats
    assert grpo_loss(new, old, A, weight.astype(bool), sequence_index=A.astype(np.int16), config=config)[0] == floats


def test_half_precision_is_read_not_computed_in(losses):
    sequences = random_sequences(0)
    weigh(sequences)
    _, arrays = checks.standard(sequences)
    half = {name: jnp.bfloat16(arrays[name]) for name in (*NAMES, "advantages")}
    call, both = jax.jit(functools.partial(losses.grpo_loss, config=losses.PolicyLoss(correction="mask", kl="k1"))), []
    for kind in (jnp.bfloat16, jnp.float32):
        given = {name: a.astype(kind) for name, a in half.items()}
        loss, metrics = call(
            *(given[name] for name in ("logprobs", "old_logprobs", "advantages")),
            jnp.float32(arrays["token_weight"]),
            ref_logprobs=given["ref_logprobs"],
            sampler_logprobs=given["sampler_logprobs"],
            sequence_index=arrays["sequence_index"],
            entropy=given["entropy"],
        )
        assert loss.dtype == jnp.float32 and all(v.dtype == jnp.float32 for v in metrics.values())
        both.append([float(loss), *map(float, metrics.values())])
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_a_part_that_makes_nan_of_zeros_is_not_read_there(losses):
    checks.own_part_that_is_nan_on_zeros(losses)


# ------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    "change, words",
    [
        ({"advantages": np.zeros(3)}, r"advantages has shape \(3,\), logprobs \(1, 3\)"),
        ({"old_logprobs": np.zeros((1, 2))}, "old_logprobs has shape"),
        ({"token_weight": np.zeros((2, 3))}, "token_weight has shape"),
        ({"ref_logprobs": np.zeros((1, 4))}, "ref_logprobs has shape"),
        ({"sampler_logprobs": np.zeros((1, 4))}, "sampler_logprobs has shape"),
        ({"sequence_index": np.zeros((3, 1))}, "sequence_index has shape"),
        ({"entropy": np.zeros((3, 1))}, "entropy has shape"),
        ({"ref_logprobs": None}, "'k3' with coefficient 0.001 needs ref_logprobs"),
        ({"correction": "mask"}, "correction 'mask' needs sampler_logprobs"),
        ({"correction": lambda tokens, config: 1.0}, "needs sampler_logprobs"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient -0.1 needs entropy"),
    ],
)
def test_bad_input_is_named(losses, change, words):
    ones = np.ones((1, 3))
    given = {"old_logprobs": ones, "advantages": ones, "token_weight": ones, "ref_logprobs": ones}
    parts = {name: value for name, value in change.items() if hasattr(losses.PolicyLoss, name)}
    arrays = {name: value for name, value in change.items() if name not in parts}
    with pytest.raises(ValueError, match=words):
        losses.grpo_loss(ones, **{**given, **arrays}, config=losses.PolicyLoss(**parts))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"kl": "k4"}, "kl 'k4' is unknown; known: none, k1, k2, k3, k3_unbiased, or a function"),
        ({"ratio": "words"}, "ratio 'words' is unknown; known: token, sequence, sequence_token, geometric"),
        ({"surrogate": "ppo"}, "surrogate 'ppo' is unknown; known: clip, dual_clip, cispo, sapo, none"),
        ({"correction": "tis"}, "correction 'tis' is unknown; known: none, truncate, mask, reject"),
        ({"correction_level": "row"}, "correction_level 'row' is unknown; known: token, sequence, geometric"),
        ({"clip_low": -0.1}, "clip_low must not be negative"),
        ({"clip_low": NAN}, "clip_low must not be negative"),
        ({"clip_high": NAN}, "clip_high must be a number"),
        ({"dual_clip": 1.0}, "dual_clip must be above 1"),
        ({"dual_clip": NAN}, "dual_clip must be above 1"),
        ({"tau_positive": 0.0}, "tau_positive must be finite and positive"),
        ({"tau_negative": INF}, "tau_negative must be finite and positive"),
        ({"correction_low": -0.1}, "correction_low -0.1 must lie between 0 and correction_high 2.0"),
        ({"correction_low": 3.0}, "correction_low 3.0 must lie between"),
        ({"correction_high": NAN}, "must lie between"),
        ({"kl_coefficient": INF}, "kl_coefficient must be finite"),
        ({"kl_coefficient": -0.1}, "kl_coefficient must be finite and not negative"),
        ({"off_policy_delta": -1.0}, "off_policy_delta must be finite and not negative"),
        ({"off_policy_delta": INF}, "off_policy_delta must be finite"),
        ({"entropy_coefficient": NAN}, "entropy_coefficient must be finite"),
    ],
)
def test_a_bad_composition_is_refused(losses, keywords, words):
    with pytest.raises(ValueError, match=words):
        losses.PolicyLoss(**keywords)


def test_numbers_at_the_edge_are_taken(losses):
    losses.PolicyLoss(clip_low=0.0, clip_high=INF, dual_clip=INF, correction_low=2.0, correction_high=2.0)
    losses.PolicyLoss(correction_low=0.0, correction_high=INF, entropy_coefficient=-0.1)
    assert not losses.PolicyLoss(kl="none").needs_reference and not losses.PolicyLoss(kl_coefficient=0.0).needs_reference
    assert losses.PolicyLoss().needs_reference and not losses.PolicyLoss().needs_sampler
    assert losses.PolicyLoss(correction="reject").needs_sampler
