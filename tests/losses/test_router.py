"""The balance of experts against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks, oracle_others

E, K = 5, 2


def routed(seed, lengths=(3, 1, 4), width=10):
    """Scores and choices of sequences packed into two rows, with junk in the padding."""
    rng = np.random.default_rng(seed)
    index = np.full((2, width), -1)
    index[0, 1:4], index[0, 6:7], index[1, 2:6] = 4, 0, 2  # any names
    scores = np.full((2, width, E), np.nan)
    experts = np.full((2, width, K), E - 1)
    weight = np.zeros((2, width))
    for name, n in zip((4, 0, 2), lengths):
        place = index == name
        scores[place] = rng.uniform(0.05, 1, (n, E))
        experts[place] = [rng.permutation(E)[:K] for _ in range(n)]
        weight[place] = 1 / (3 * n)
    return scores, experts, weight, index


@pytest.mark.parametrize("seed", range(3))
def test_the_sequence_wise_loss(losses, seed):
    scores, experts, weight, index = routed(seed)
    flat = [scores[index == name] for name in (4, 0, 2)]
    picks = [experts[index == name].tolist() for name in (4, 0, 2)]

    def mean_over_sequences(numbers):
        numbers, total = list(numbers), 0.0
        for some, chosen in zip(flat, picks):
            tokens = [[numbers.pop(0) for _ in range(E)] for _ in some]
            total = total + oracle_others.balance(tokens, chosen, E) / 3
        return 0.01 * total

    numbers = np.concatenate([f.ravel() for f in flat]).tolist()
    with jax.enable_x64(True):

        def loss(x):
            return losses.sequence_balance_loss(x, experts, weight, index, coefficient=0.01)

        (found, metrics), gradient = checks.differentiated(loss)(jnp.asarray(scores))
        expected = mean_over_sequences(numbers)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(metrics["balance"], expected / 0.01, rtol=1e-12)
        np.testing.assert_allclose([metrics["loss"], metrics["weight"], metrics["tokens"]], [expected, 1, 8], rtol=1e-12)
        slopes = np.concatenate([np.asarray(gradient)[index == name].ravel() for name in (4, 0, 2)])
        np.testing.assert_allclose(slopes, oracle_others.derivative(mean_over_sequences, numbers), rtol=1e-9, atol=1e-15)
        assert (np.asarray(gradient)[index < 0] == 0).all()


def test_a_row_is_a_sequence_where_no_index_is_given(losses):
    scores, experts, weight, index = routed(0)
    index = np.where(index < 0, -1, np.arange(2)[:, None])
    scale = np.where(weight > 0, 1 / (2 * (weight > 0).sum(1, keepdims=True)), 0)
    run = jax.jit(losses.sequence_balance_loss, static_argnames="coefficient")
    given = [run(scores, experts, scale, i, coefficient=1.0)[0] for i in (index, None)]
    np.testing.assert_allclose(*given, rtol=1e-6)


def test_perfect_balance_is_one_and_one_expert_for_all_is_the_worst(losses):
    scores = np.ones((1, 4, 4))
    run = jax.jit(losses.sequence_balance_loss, static_argnames="coefficient")
    even = run(scores, np.arange(4).reshape(1, 4, 1), np.full((1, 4), 0.25), coefficient=1.0)
    np.testing.assert_allclose(even[0], 1, rtol=1e-6)
    scores = np.eye(4)[None, np.zeros(4, int)]
    worst = run(scores, np.zeros((1, 4, 1), int), np.full((1, 4), 0.25), coefficient=1.0)
    np.testing.assert_allclose(worst[0], 4, rtol=1e-6)


def test_only_shares_of_scores_count(losses):
    scores, experts, weight, index = routed(0)
    run = jax.jit(losses.sequence_balance_loss, static_argnames="coefficient")
    small, large = (run(f * scores, experts, weight, index, coefficient=1.0)[0] for f in (1e-4, 1.0))
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_micro_batches_add_up(losses):
    scores, experts, weight, index = routed(1)
    run = jax.jit(losses.sequence_balance_loss, static_argnames="coefficient")
    whole = run(scores, experts, weight, index, coefficient=1.0)[0]
    parts = [run(scores[b], experts[b], weight[b], index[b], coefficient=1.0)[0] for b in (slice(0, 1), slice(1, 2))]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)


def test_bfloat16_scores_are_computed_with_in_float32(losses):
    scores, experts, weight, index = routed(2)
    scores = jnp.bfloat16(np.nan_to_num(scores))
    run = checks.differentiated(lambda x: losses.sequence_balance_loss(x, experts, weight, index, coefficient=1.0))
    (found, _), gradient = run(scores)
    exact = run(jnp.float32(scores))[0][0]
    assert found.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_scores_of_zero_and_weightless_rows_are_finite(losses):
    _, experts, weight, index = routed(0)
    run = checks.differentiated(lambda x, w: losses.sequence_balance_loss(x, experts, w, index, coefficient=1.0))
    for scores, scale in (
        (np.zeros((2, 10, E)), weight),
        (np.full((2, 10, E), np.nan), 0 * weight),
        (np.full((2, 10, E), np.inf), 0 * weight),
    ):
        (loss, metrics), gradient = run(jnp.float32(scores), scale)
        assert jnp.isfinite(loss) and (jnp.abs(gradient) < 1e3).all()
        assert scale.any() or (loss == 0 and (gradient == 0).all() and all(v == 0 for v in metrics.values()))


def test_the_load_counts_tokens(losses):
    _, experts, weight, _ = routed(0)
    expected = np.zeros(E)
    for b, t in np.argwhere(weight > 0):
        for e in experts[b, t]:
            expected[e] += 1
    load = losses.expert_load(experts, weight > 0, E)
    assert load.dtype == jnp.float32 and load.tolist() == expected.tolist()
    parts = [losses.expert_load(experts[b], (weight > 0)[b], E) for b in (slice(0, 1), slice(1, 2))]
    assert sum(parts).tolist() == expected.tolist()


def test_the_bias_moves_against_the_load(losses):
    bias, load = np.float32([[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]]), np.float32([[9, 1, 5, 5], [2, 2, 2, 2]])
    found = losses.router_bias_update(bias, load, rate=0.25)
    np.testing.assert_allclose(found, [[0.25, 0.75, 0.5, 0.5], [0, 0, 0, 0]])
    half = losses.router_bias_update(jnp.bfloat16(bias), jnp.float32(load), rate=0.25)
    assert half.dtype == jnp.bfloat16


def test_shapes_are_refused_by_name(losses):
    scores, experts, weight, index = routed(0)
    for change, words in (
        ({"scores": scores[0]}, r"\[B, T, E\]"),
        ({"experts": experts[..., 0]}, r"\[B, T, K\]"),
        ({"scores": scores[:, 1:]}, "scores has shape"),
        ({"experts": experts[:, 1:]}, "experts has shape"),
        ({"sequence_index": index[:, 1:]}, "sequence_index has shape"),
    ):
        given = {"scores": scores, "experts": experts, "token_weight": weight, "sequence_index": index}
        with pytest.raises(ValueError, match=words):
            losses.sequence_balance_loss(**{**given, **change}, coefficient=1.0)
