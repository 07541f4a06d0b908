"""Attention against a loop over tokens and heads, in one block or merged from several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.ops import attention

SCALE = 0.4

# Compiled whole: op by op, every small operation would be compiled on its own.
attend = jax.jit(lambda *block: attention.attend(*block, SCALE))
decode = jax.jit(lambda *arguments, newest=None: attention.decode_attention(*arguments, newest, SCALE))


def oracle(q, k, v, mask):
    """``q [B, T, N, H]``, ``k, v [B, K, S, H]``, ``mask [B, T, S]``: values, and logsumexp, in float64."""
    values, logsumexp = np.zeros(q.shape), np.full(q.shape[:3], -np.inf)
    for b, t, n in np.ndindex(*q.shape[:3]):
        seen = np.flatnonzero(mask[b, t])
        if len(seen):
            shared = n // (q.shape[2] // k.shape[1])
            weights = np.exp(k[b, shared, seen] @ q[b, t, n] * SCALE)
            values[b, t, n] = weights @ v[b, shared, seen] / weights.sum()
            logsumexp[b, t, n] = np.log(weights.sum())
    return values, logsumexp


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("heads, shared", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("queries", [1, 3])
def test_attend_is_the_softmax_and_is_empty_where_nothing_is_seen(heads, shared, queries):
    q, k, v = draw(0, (2, queries, heads, 6), (2, shared, 5, 6), (2, shared, 5, 6))
    mask = np.random.default_rng(1).random((2, queries, 5)) < 0.6
    mask[1, 0] = False
    with jax.enable_x64(True):
        found = attend(q, k, v, mask)
    for got, expected in zip(found, oracle(q, k, v, mask)):
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected, atol=1e-12)
    assert np.isneginf(np.asarray(found[1])[1, 0]).all()


def test_large_scores_neither_overflow_nor_vanish():
    q, k, v = draw(2, (1, 2, 1, 4), (1, 1, 3, 4), (1, 1, 3, 4))
    values, logsumexp = attend(*map(np.float32, (1e4 * q, k, v)), np.ones((1, 1, 3), bool))
    assert np.isfinite(values).all() and np.isfinite(logsumexp).all()
    best = (q[0, :, 0] @ k[0, 0].T).argmax(-1)
    np.testing.assert_allclose(values[0, :, 0], v[0, 0, best], rtol=1e-5)


def test_gradients_are_those_of_finite_differences_and_finite_where_nothing_is_seen():
    q, k, v = draw(3, (1, 2, 2, 4), (1, 1, 3, 4), (1, 1, 3, 4))
    mask = np.array([[[1, 1, 0], [0, 0, 0]]], bool)
    (weight,) = draw(4, (1, 2, 2, 4))

    def loss(q, k, v):
        return (attend(q, k, v, mask)[0] * weight).sum()

    arrays = [q, k, v]
    with jax.enable_x64(True):
        gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays)
        for i, gradient in enumerate(gradients):
            (direction,) = draw(5 + i, arrays[i].shape)
            ends = [loss(*arrays[:i], arrays[i] + step * direction, *arrays[i + 1 :]) for step in (1e-5, -1e-5)]
            assert np.isfinite(gradient).all()
            np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_blocks_merge_as_if_they_had_been_one():
    q, k, v = draw(6, (2, 1, 4, 6), (2, 2, 9, 6), (2, 2, 9, 6))
    mask = np.random.default_rng(7).random((2, 1, 9)) < 0.5
    mask[0, 0, 3:7] = False  # an empty part
    mask[:, :, 8] = True
    with jax.enable_x64(True):
        parts = [attend(q, k[:, :, s], v[:, :, s], mask[:, :, s]) for s in (slice(0, 3), slice(3, 7), slice(7, 9))]
        found = jax.jit(attention.merge)(parts)
    np.testing.assert_allclose(found, oracle(q, k, v, mask)[0], atol=1e-12)


def test_packed_attention_is_causal_within_segments():
    q, k, v = draw(8, (1, 7, 4, 6), (1, 7, 2, 6), (1, 7, 2, 6))
    segments = np.array([[1, 1, 1, 2, 2, 0, 0]])
    mask = np.zeros((1, 7, 7), bool)
    for t in range(7):
        for s in range(t + 1):
            mask[0, t, s] = segments[0, t] == segments[0, s] != 0
    with jax.enable_x64(True):
        found = jax.jit(lambda *a: attention.packed_attention(*a, SCALE))(q, k, v, segments)
    np.testing.assert_allclose(found, oracle(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask)[0], atol=1e-12)
    assert (np.asarray(found)[0, 5:] == 0).all()


def test_a_long_row_in_blocks_of_queries_is_as_in_one_piece(monkeypatch):
    q, k, v, weight = draw(10, (2, 13, 4, 6), (2, 13, 2, 6), (2, 13, 2, 5), (2, 13, 4, 5))
    segments = np.array([[1] * 6 + [2] * 5 + [0] * 2, [1] * 13])

    def gradients(q, k, v):
        def loss(q, k, v):
            y = attention.packed_attention(q, k, v, segments, SCALE)
            return (y * weight).sum(), y

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)

    with jax.enable_x64(True):
        whole = gradients(q, k, v)
        monkeypatch.setattr(attention, "WHOLE", 12)
        monkeypatch.setattr(attention, "QUERIES", 4)  # 13 are no multiple of it
        blocks = gradients(q, k, v)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(blocks), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    assert (np.asarray(blocks[1])[0, 11:] == 0).all() and (np.asarray(blocks[1])[1] != 0).all()


def test_gradients_of_keys_are_summed_over_blocks_in_float32(monkeypatch):
    """A bfloat16 sum over 64 blocks would lose two digits more than the rounding of its result."""
    monkeypatch.setattr(attention, "WHOLE", 64)
    monkeypatch.setattr(attention, "QUERIES", 4)
    arrays = [x.astype(jnp.bfloat16) for x in draw(11, *[(1, 256, 1, 8)] * 3)]
    segments = np.ones((1, 256), int)

    def gradient(q, k, v):
        return jax.jit(jax.grad(lambda v: attention.packed_attention(q, k, v, segments, SCALE).astype(v.dtype).sum()))(v)

    found = np.asarray(gradient(*arrays), np.float32)
    expected = np.asarray(gradient(*[x.astype(np.float32) for x in arrays]))
    # Weights and result are rounded to bfloat16, 2^-9 each; the errors of the weights partly cancel in the sum.
    np.testing.assert_allclose(found, expected, rtol=2**-7)


def test_the_scores_of_a_long_row_are_never_there_as_a_whole():
    T = 2 * attention.WHOLE
    row, segments = jax.ShapeDtypeStruct((1, T, 1, 8), jnp.float32), jax.ShapeDtypeStruct((1, T), jnp.int32)

    def loss(q, k, v, segments):
        return attention.packed_attention(q, k, v, segments, SCALE).sum()

    lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(row, row, row, segments)
    assert "optimization_barrier" not in lowered.as_text()  # the loop over the blocks keeps them apart
    compiled = lowered.compile()
    assert compiled.memory_analysis().temp_size_in_bytes < T * T * 4 / 2


def decode_arguments(prompts=2, lanes=3, heads=4, shared=2, dtype=np.float64):
    B, S, C, H = prompts * lanes, 5, 4, 6
    shapes = [(B, 1, heads, H)] + [(prompts, shared, S, H)] * 2 + [(B, shared, C, H)] * 2
    q, *blocks = (x.astype(dtype) for x in draw(9, *shapes))
    prompt_length = np.array([S, 0] + [2] * (prompts - 2))  # a prompt of one token prefills nothing
    own_length = np.arange(B) % C + 1
    return q, tuple(blocks[:2]), prompt_length, tuple(blocks[2:]), own_length


def joined(q, prompt, prompt_length, own, own_length):
    """The oracle on prompt and own block as one."""
    lanes = len(q) // len(prompt_length)
    keys, values = (np.concatenate([np.repeat(p, lanes, 0), o], 2) for p, o in zip(prompt, own))
    S, C = prompt[0].shape[2], own[0].shape[2]
    mask = np.zeros((len(q), 1, S + C), bool)
    mask[:, 0, :S] = np.arange(S) < np.repeat(prompt_length, lanes)[:, None]
    mask[:, 0, S:] = np.arange(C) < own_length[:, None]
    return oracle(q, keys, values, mask)[0]


@pytest.mark.parametrize("shared", [4, 2, 1])
def test_decode_attends_the_prompts_block_and_its_own(shared):
    arguments = decode_arguments(shared=shared)
    with jax.enable_x64(True):
        found = decode(*arguments)
    np.testing.assert_allclose(found, joined(*arguments), atol=1e-12)


def test_the_newest_entry_may_be_in_the_block_or_beside_it():
    q, prompt, prompt_length, own, own_length = decode_arguments()
    last = (np.arange(len(q)), slice(None), own_length - 1)
    newest = tuple(block[last][:, :, None] for block in own)
    with jax.enable_x64(True):
        beside = decode(q, prompt, prompt_length, own, own_length - 1, newest=newest)
    np.testing.assert_allclose(beside, joined(q, prompt, prompt_length, own, own_length), atol=1e-12)


def test_results_have_the_dtype_of_the_query():
    arguments = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16) if x.dtype == np.float64 else x, decode_arguments())
    found = decode(*arguments)
    assert found.dtype == jnp.bfloat16
    exact = joined(*jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == jnp.bfloat16 else x, arguments))
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, atol=0.03)
