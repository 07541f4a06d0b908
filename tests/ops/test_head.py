"""The chunked head against log_softmax in float64, its gradients, its memory, and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import sharding
from r1jax.ops.head import selected_logprobs


def example(rows, length, width, vocabulary, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, length, width))
    head = rng.normal(size=(width, vocabulary)) * 0.5
    targets = rng.integers(0, vocabulary, (rows, length))
    weights = rng.normal(size=(2, rows, length))
    return hidden, head, targets, weights


def oracle(hidden, head, targets, temperature):
    """Token by token, in float64."""
    logprobs, entropy = np.zeros(targets.shape), np.zeros(targets.shape)
    for b, t in np.ndindex(*targets.shape):
        logits = np.array([sum(hidden[b, t] * head[:, v]) / temperature for v in range(head.shape[1])])
        p = np.exp(logits - logits.max())
        p /= p.sum()
        logprobs[b, t] = np.log(p[targets[b, t]])
        entropy[b, t] = -(p * np.log(p)).sum()
    return logprobs, entropy


def scalar(hidden, head, targets, weights, **keywords):
    logprobs, entropy = selected_logprobs(hidden, head, targets, **keywords)
    return (weights[0] * logprobs).sum() + (weights[1] * entropy).sum()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 6, 9, 1000])  # 9 and 6 do not divide 2 x 7 tokens
def test_values_and_gradients_are_those_of_the_softmax(chunk, temperature):
    hidden, head, targets, weights = example(2, 7, 5, 11)
    expected = oracle(hidden, head, targets, temperature)
    with jax.enable_x64(True):
        args = jnp.asarray(hidden), jnp.asarray(head)
        found = selected_logprobs(*args, targets, temperature, chunk=chunk)
        assert found[0].dtype == jnp.float64
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-12)

        def naive(h, w):
            logp = jax.nn.log_softmax(h @ w / temperature)
            chosen = jnp.take_along_axis(logp, jnp.asarray(targets)[..., None], -1)[..., 0]
            return (weights[0] * chosen).sum() - (weights[1] * (jnp.exp(logp) * logp).sum(-1)).sum()

        gradients = jax.grad(scalar, (0, 1))(*args, targets, weights, temperature=temperature, chunk=chunk)
        for found, expected in zip(gradients, jax.grad(naive, (0, 1))(*args)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_gradients_by_finite_differences():
    hidden, head, targets, weights = example(1, 3, 2, 4, seed=3)
    with jax.enable_x64(True):
        by_head = jax.grad(scalar, 1)(jnp.asarray(hidden), jnp.asarray(head), targets, weights, chunk=2)
        for place in np.ndindex(*head.shape):
            moved = [head.copy(), head.copy()]
            moved[0][place] += 1e-6
            moved[1][place] -= 1e-6
            high, low = (scalar(jnp.asarray(hidden), jnp.asarray(h), targets, weights, chunk=2) for h in moved)
            assert abs((high - low) / 2e-6 - by_head[place]) < 1e-7


def test_float32_and_a_peaked_distribution():
    hidden, head, targets, _ = example(2, 8, 16, 64)
    logprobs, entropy = selected_logprobs(jnp.float32(hidden * 30), jnp.float32(head), targets, chunk=4)
    expected = oracle(np.float32(hidden * 30).astype(float), np.float32(head).astype(float), targets, 1.0)
    # logits reach 200, so float32 leaves 200 * 6e-8 a few times over
    np.testing.assert_allclose(logprobs, expected[0], rtol=0, atol=2e-4)
    np.testing.assert_allclose(entropy, expected[1], rtol=0, atol=2e-4)
    assert logprobs.dtype == jnp.float32 and (np.asarray(logprobs) <= 0).all()


def test_bfloat16_states_leave_a_float32_head_an_unrounded_gradient():
    hidden, head, targets, weights = example(2, 32, 16, 64)
    hidden, head = jnp.bfloat16(hidden), jnp.float32(head).astype(jnp.bfloat16).astype(jnp.float32)
    by_hidden, by_head = jax.grad(scalar, (0, 1))(hidden, head, targets, jnp.float32(weights), chunk=8)
    reference = jax.grad(scalar, 1)(hidden.astype(jnp.float32), head, targets, jnp.float32(weights), chunk=8)
    assert by_hidden.dtype == jnp.bfloat16 and by_head.dtype == jnp.float32
    # Each logit's gradient is rounded to bfloat16 (2**-9), the sums are not.
    assert jnp.linalg.norm(by_head - reference) < 2**-9 * jnp.linalg.norm(reference)
    assert jnp.any(by_head != by_head.astype(jnp.bfloat16))


def temporary_bytes(rows, length, width, vocabulary, chunk):
    shapes = [(rows, length, width), (width, vocabulary)]
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes] + [jax.ShapeDtypeStruct((rows, length), jnp.int32)]

    def loss(hidden, head, targets):
        logprobs, entropy = selected_logprobs(hidden, head, targets, chunk=chunk)
        return (logprobs + entropy).sum()

    return jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory_is_one_chunk_and_the_head_s_gradient():
    rows, length, width, vocabulary, chunk = 4, 256, 16, 8192, 32
    logits, head, states = 4 * rows * length * vocabulary, 4 * width * vocabulary, 4 * rows * length * width
    found = temporary_bytes(rows, length, width, vocabulary, chunk)
    assert found < 4 * (4 * chunk * vocabulary) + 3 * head + 8 * states < logits / 4
    # Twice as long costs no more logits.
    assert temporary_bytes(rows, 2 * length, width, vocabulary, chunk) - found < 8 * states


@pytest.mark.parametrize("sizes", [(4, 1, 2), (1, 4, 2), (2, 2, 2), (1, 1, 8)])
def test_mesh(sizes):
    hidden, head, targets, weights = example(8, 6, 8, 16)
    hidden, head, weights = jnp.float32(hidden), jnp.float32(head), jnp.float32(weights)
    expected = jax.value_and_grad(scalar, (0, 1))(hidden, head, targets, weights, chunk=4)
    layout = sharding.layout(sharding.make_mesh(*sizes), sharding.TRAIN_RULES)
    shardings = layout.sharding(("batch", None, None)), layout.sharding(("embed", "vocab"))
    placed = jax.device_put(hidden, shardings[0]), jax.device_put(head, shardings[1])
    with layout.use():
        step = jax.jit(jax.value_and_grad(lambda *a: scalar(*a, chunk=4), (0, 1)), out_shardings=(None, shardings))
        found = step(*placed, jnp.asarray(targets), weights)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for a, b, s in zip(found[1], expected[1], shardings):
        assert a.sharding.is_equivalent_to(s, a.ndim)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_one_reduction_of_the_head_s_gradient():
    """Over data shards the loop itself holds no collective that is as large as the head."""
    layout = sharding.layout(sharding.make_mesh(8, 1, 1), sharding.TRAIN_RULES)
    args = [jax.ShapeDtypeStruct((8, 64, 8), jnp.float32, sharding=layout.sharding(("batch", None, None)))]
    args += [jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=layout.replicated)]
    args += [jax.ShapeDtypeStruct((8, 64), jnp.int32, sharding=layout.sharding(("batch", None)))]
    with layout.use():
        loss = jax.grad(lambda h, w, t: selected_logprobs(h, w, t, chunk=8)[0].sum(), (0, 1))
        text = jax.jit(loss).lower(*args).compile().as_text()
    reductions = [line for line in text.splitlines() if "all-reduce(" in line and " = f32[" in line]
    assert len(reductions) == 1 and "while/body" not in reductions[0]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"targets": np.zeros((2, 3), int)}, r"targets \[B, T\] \(2, 3\)"),
    ],
)
def test_bad_input_is_named(change, words):
    hidden, head, targets, _ = example(2, 7, 5, 11)
    with pytest.raises(ValueError, match=words):
        selected_logprobs(**{"hidden": hidden, "head": head, "targets": targets, **change})


def test_rows_that_do_not_divide_over_the_mesh_are_refused():
    hidden, head, targets, _ = example(3, 7, 5, 11)
    with (
        sharding.layout(sharding.make_mesh(8, 1, 1), sharding.TRAIN_RULES).use(),
        pytest.raises(ValueError, match="3 rows do not divide over 8 batch shards"),
    ):
        selected_logprobs(hidden, head, targets)
