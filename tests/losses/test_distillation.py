"""Distillation from distributions against the oracle, with tokens that one or both call impossible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks, oracle_others

INF = float("inf")
KINDS = {"forward": 0.5, "reverse": 0.5, "js": 0.5, "js 0.1": 0.1, "js 0.9": 0.9}


def divergence(losses, kind):
    """What is given as ``divergence``, the oracle's name for it, and beta."""
    beta = KINDS[kind]
    return (functools.partial(losses.generalised_js, beta=beta) if " " in kind else kind), kind.split()[0], beta


@functools.cache
def compiled(losses, kind, temperature=1.0):
    """``(student, teacher, weight) -> (loss, metrics), gradients`` of both."""
    given = divergence(losses, kind)[0]

    def loss(student, teacher, weight):
        return losses.logit_distillation_loss(student, teacher, weight, divergence=given, temperature=temperature)

    return checks.differentiated(loss, (0, 1))


def logits(seed, masked):
    """``[2, 3, 6]``: ordinary rows, one weightless of NaN. ``masked``: of whom some are impossible."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(0, 2, (2, 2, 3, 6))
    if masked in ("both", "apart"):
        teacher[0, :, 4], student[0, :, 4] = -INF, -INF
    if masked in ("teacher", "apart"):
        teacher[1, 0, 2] = -INF
    if masked in ("student", "apart"):
        student[1, 1, 3] = -INF
    student[1, 2], teacher[1, 2] = np.nan, np.nan
    weight = np.array([[0.1, 0.2, 0.3], [0.15, 0.25, 0.0]])
    return student, teacher, weight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", ["none", "both", "teacher", "student", "apart"])
def test_divergences_between_whole_distributions(losses, kind, masked):
    _, name, beta = divergence(losses, kind)
    student, teacher, weight = logits(0, masked)
    temperature = 1.7
    with jax.enable_x64(True):
        (found, metrics), gradients = compiled(losses, kind, temperature)(*map(jnp.asarray, (student, teacher, weight)))
        expected, agreement, entropy = 0.0, 0.0, 0.0
        for b, t in np.argwhere(weight > 0):
            x, y = student[b, t].tolist(), teacher[b, t].tolist()

            def one(numbers, y=y):
                return oracle_others.divergence(numbers, y, name, temperature, beta)

            expected += weight[b, t] * one(x).real
            agreement += weight[b, t] * (np.argmax(x) == np.argmax(y))
            log_p = oracle_others.log_softmax([v / temperature for v in x])
            entropy -= weight[b, t] * sum((np.exp(p) * p).real for p in log_p if p.real > -INF)
            slopes = np.asarray(oracle_others.derivative(one, x))
            slopes[~np.isfinite(x)] = 0
            np.testing.assert_allclose(gradients[0][b, t], weight[b, t] * slopes, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert (gradients[0][1, 2] == 0).all() and (gradients[1] == 0).all()
        figures = {"divergence": expected, "teacher_agreement": agreement, "student_entropy": entropy, "loss": expected}
        figures |= {"tokens": 5, "weight": 1.0}
        assert {k: float(v) for k, v in metrics.items()} == pytest.approx(figures, rel=1e-11)


def test_by_hand(losses):
    student, teacher = np.log([0.25, 0.75]), np.log([0.5, 0.5])
    np.testing.assert_allclose(losses.forward_kl(student, teacher), 0.5 * np.log(2) + 0.5 * np.log(2 / 3), rtol=1e-6)
    np.testing.assert_allclose(losses.reverse_kl(student, teacher), 0.25 * np.log(0.5) + 0.75 * np.log(1.5), rtol=1e-6)
    middle = np.array([0.375, 0.625])
    expected = 0.5 * np.sum(0.5 * np.log(0.5 / middle)) + 0.5 * np.sum(np.exp(student) * (student - np.log(middle)))
    np.testing.assert_allclose(losses.generalised_js(student, teacher), expected, rtol=1e-5)
    impossible = np.log([1.0, 1e-45]) * [1, INF]  # teacher: the first, certainly
    np.testing.assert_allclose(losses.forward_kl(student, impossible), -np.log(0.25), rtol=1e-6)
    np.testing.assert_allclose(losses.generalised_js(np.array([0, -INF]), np.array([-INF, 0])), np.log(2), rtol=1e-6)


def test_the_ends_of_generalised_js_are_the_divergences(losses):
    """GKD's limits: over beta it is KL(teacher || student) near 0, over 1 - beta KL(student || teacher) near 1."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        student, teacher = (jax.nn.log_softmax(jnp.asarray(rng.normal(size=7))) for _ in range(2))
        for beta, expected in ((1e-6, losses.forward_kl), (1 - 1e-6, losses.reverse_kl)):
            slope = losses.generalised_js(student, teacher, beta) / min(beta, 1 - beta)
            np.testing.assert_allclose(slope, expected(student, teacher), rtol=1e-4)


def test_the_same_distribution_has_no_divergence_and_no_gradient(losses):
    student, _, weight = logits(1, "both")
    for kind in KINDS:
        (loss, metrics), (gradient, _) = compiled(losses, kind)(*map(jnp.float32, (student, student, weight)))
        assert abs(loss) < 1e-6 and jnp.abs(gradient).max() < 1e-6 and metrics["teacher_agreement"] == 1


def test_defaults_and_slices_add_up(losses):
    student, teacher, weight = logits(2, "none")
    whole = losses.logit_distillation_loss(student, teacher, weight)[0]
    named = losses.logit_distillation_loss(student, teacher, weight, divergence="forward", temperature=1.0)[0]
    parts = [
        losses.logit_distillation_loss(*(a[:, t : t + 1] for a in (student, teacher, weight)))[0] for t in range(3)
    ]  # fmt: skip
    assert whole == named
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_far_logits_half_precision_and_nothing_that_counts(losses, kind):
    far = jnp.float32([[[1e4, -1e4, 0.0], [0.0, 30.0, -INF], [1e4, 0, 0]]])
    other = jnp.float32([[[-1e4, 1e4, 0.0], [-INF, 0.0, 0.0], [-INF, -INF, 0]]])
    for x, y in ((far, other), (other, far)):
        (value, metrics), gradient = compiled(losses, kind)(x, y, jnp.ones((1, 3)))
        assert jnp.isfinite(value) and jnp.isfinite(gradient[0]).all()
        assert all(jnp.isfinite(v) for v in metrics.values())
    x, y = (jnp.bfloat16(np.random.default_rng(0).normal(size=(1, 3, 3))) for _ in range(2))
    found = compiled(losses, kind)(x, y, jnp.ones((1, 3)))[0][0]
    exact = compiled(losses, kind)(jnp.float32(x), jnp.float32(y), jnp.ones((1, 3)))[0][0]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    for junk in (jnp.nan, jnp.inf, -jnp.inf):
        (value, metrics), gradient = compiled(losses, kind)(far * junk, other * junk, jnp.zeros((1, 3)))
        assert value == 0 and (gradient[0] == 0).all() and all(v == 0 for v in metrics.values())


def test_on_policy_advantages(losses):
    teacher, old = np.array([[-1.0, -3.0, -50.0, -INF, -INF]]), np.array([[-2.0, -1.0, -1.0, -1.0, -INF]])
    found = losses.on_policy_distillation_advantages(teacher, old)
    np.testing.assert_allclose(found, [[1, -2, -20, -20, 0]], rtol=1e-6)
    gradient = jax.grad(lambda x, y: losses.on_policy_distillation_advantages(x, y).sum(), (0, 1))(teacher, old)
    assert (gradient[0] == 0).all() and (gradient[1] == 0).all()


def test_on_policy_advantages_lower_the_reverse_divergence(losses):
    """Over a whole vocabulary the policy gradient with them is that of KL(student || teacher)."""
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        logits, teacher = (jnp.asarray(rng.normal(size=5)) for _ in range(2))
        teacher, old = jax.nn.log_softmax(teacher), jax.nn.log_softmax(logits)
        advantages = losses.on_policy_distillation_advantages(teacher, old)

        def loss(x):  # each token as often as it is sampled
            new = jax.nn.log_softmax(x)
            config = losses.PolicyLoss(surrogate="none", kl="none")
            return losses.grpo_loss(new[None], old[None], advantages[None], jnp.exp(old)[None], config=config)[0]

        expected = jax.jit(jax.grad(lambda x: losses.reverse_kl(jax.nn.log_softmax(x), teacher)))(logits)
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(logits), expected, rtol=1e-9, atol=1e-12)


def test_bad_input_is_named(losses):
    x, w = np.ones((2, 3, 4)), np.ones((2, 3))
    for call, words in (
        (lambda: losses.logit_distillation_loss(x, x[..., :3], w), r"teacher_logits has shape \(2, 3, 3\)"),
        (lambda: losses.logit_distillation_loss(x, x, w.T), r"token_weight has shape \(3, 2\)"),
        (lambda: losses.logit_distillation_loss(x, x, w, divergence="kl"), "'kl' is unknown; known: forward, reverse, js"),
        (lambda: losses.logit_distillation_loss(x, x, w, temperature=0.0), "temperature must be positive, but is 0.0"),
        (lambda: losses.generalised_js(x, x, beta=0.0), r"inside \(0, 1\), but is 0.0"),
        (lambda: losses.generalised_js(x, x, beta=1.0), "use forward_kl or reverse_kl"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
