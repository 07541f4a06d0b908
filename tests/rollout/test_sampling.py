"""From logits to tokens: the distribution, its restrictions, the randomness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.rollout import sampling
from r1jax.rollout.sampling import Distribution

sample = jax.jit(sampling.sample)
invert_cdf = jax.jit(sampling.invert_cdf)


def plain(temperature=1.0):
    return Distribution(jnp.float32(temperature))


def restricted(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    return Distribution(jnp.float32(temperature), jnp.float32(top_p), jnp.int32(top_k), jnp.float32(min_p))


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def oracle(logits, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    """The restricted distribution of one row, token by token from the most probable down."""
    p = softmax(np.asarray(logits, float) / temperature)
    order = np.argsort(-p, kind="stable")
    kept = order[: top_k or None]
    total, mass, chosen = p[kept].sum(), 0.0, []
    for token in kept:
        if chosen and mass >= top_p * total:
            break
        mass += p[token]
        if p[token] >= min_p * p[order[0]]:
            chosen.append(token)
    q = np.zeros_like(p)
    q[chosen] = p[chosen]
    return q / q.sum()


def measured(logits, distribution, n=4096):
    """The probability that each token has over a fine grid of uniform numbers."""
    u = (jnp.arange(n) + 0.5) / n
    tokens, logprobs = sample(jnp.broadcast_to(logits, (n, len(logits))), u, distribution)
    return np.bincount(tokens, minlength=len(logits)) / n, np.asarray(tokens), np.asarray(logprobs)


@pytest.mark.parametrize("vocabulary", [1, 2, 10, 101])
def test_the_inverse_of_the_cdf_is_the_one_level_inverse(vocabulary):
    rng = np.random.default_rng(vocabulary)
    weights = rng.random((64, vocabulary)) * (rng.random((64, vocabulary)) < 0.7)
    weights[:, rng.integers(vocabulary)] += 0.1
    u = rng.random(64)
    with jax.enable_x64(True):
        found = invert_cdf(weights, u)
    expected = [(np.cumsum(w) <= x * w.sum()).sum() for w, x in zip(weights, u)]
    np.testing.assert_array_equal(found, expected)


def test_the_ends_of_the_unit_interval_give_tokens_of_some_weight():
    weights = np.zeros((3, 12), np.float32)
    weights[:, [4, 5, 9]] = [0.3, 0.1, 0.2]
    weights[2] *= 1e-30
    u = np.array([0.0, np.nextafter(np.float32(1), np.float32(0)), np.nextafter(np.float32(1), np.float32(0))])
    assert invert_cdf(weights, u).tolist() == [4, 9, 9]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_the_full_softmax_is_sampled_and_scored(temperature):
    logits = np.random.default_rng(0).normal(size=30).astype(np.float32) * 2
    shares, tokens, logprobs = measured(logits, plain(temperature))
    p = softmax(logits.astype(float) / temperature)
    assert np.abs(shares - p).max() < 2 / 4096  # the grid's resolution, at both ends of an interval
    np.testing.assert_allclose(logprobs, np.log(p)[tokens], atol=2e-6)


RESTRICTIONS = [
    dict(top_p=0.7),
    dict(top_k=5),
    dict(min_p=0.2),
    dict(top_p=0.9, top_k=8, min_p=0.05, temperature=0.7),
    dict(top_p=0.01),  # the most probable token stays
    dict(top_k=1),
    dict(top_k=30),
    dict(top_k=100, top_p=0.5),
    dict(),
]


@pytest.mark.parametrize("keywords", RESTRICTIONS, ids=str)
def test_restrictions_are_those_of_the_oracle(keywords):
    for seed in range(4):
        logits = np.random.default_rng(seed).normal(size=30).astype(np.float32) * 2
        shares, tokens, logprobs = measured(logits, restricted(**keywords))
        expected = oracle(logits, **keywords)
        assert ((shares > 0) <= (expected > 0)).all()
        assert np.abs(shares - expected).max() < 2 / 4096
        full = np.log(softmax(logits.astype(float) / keywords.get("temperature", 1.0)))
        np.testing.assert_allclose(logprobs, full[tokens], atol=2e-6)  # of the full softmax all the same


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "keywords, kept",
    [
        (dict(top_k=2), [[0, 1, 2, 4], [0, 3]]),  # of the three one would do, but they are alike
        (dict(top_k=2, top_p=0.5), [[1], [0]]),  # 1 of 1.5, the weight of the two best
        (dict(top_p=0.7), [[0, 1, 2, 4], [0, 3]]),
        (dict(top_k=4), [[0, 1, 2, 4], [0, 1, 3]]),  # what weighs nothing is never kept
        (dict(top_k=5, min_p=0.4), [[0, 1, 2, 4], [0, 3]]),
    ],
    ids=str,
)
def test_restrictions_keep_ties_of_the_last_one(dtype, keywords, kept):
    weights = np.array([[0.5, 1.0, 0.5, 0.25, 0.5, 0.0], [1.0, 0.25, 0.0, 0.5, 0.0, 0.0]], dtype)
    with jax.enable_x64(dtype == np.float64):
        given = np.asarray(sampling.restrict(jnp.asarray(weights), restricted(**keywords)))
    assert [np.flatnonzero(row).tolist() for row in given] == kept
    np.testing.assert_array_equal(given[given > 0], weights[given > 0])


def test_greedy_takes_the_first_of_the_best_and_scores_at_temperature_one():
    logits = np.array([[0.0, 3.0, 3.0, 1.0], [2.0, -1.0, 0.0, 0.0]], np.float32)
    for distribution in (plain(0.0), restricted(0.0, top_p=0.5)):
        tokens, logprobs = sample(logits, np.array([0.9, 0.9], np.float32), distribution)
        assert tokens.tolist() == [1, 0]
        np.testing.assert_allclose(logprobs, np.log(softmax(logits))[[0, 1], [1, 0]], atol=1e-6)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0, 9e3], [-1e30, -1e30, -1e30, 0]], np.float32)
    tokens, logprobs = sample(logits, np.array([0.5, 0.999], np.float32), plain())
    assert tokens.tolist() == [0, 3] and logprobs.tolist() == [0, 0]


def draws(seed, rollout, prompt_ids, samples, positions):
    keys = sampling.sequence_keys(jnp.int32(seed), jnp.int32(rollout), jnp.asarray(prompt_ids), jnp.asarray(samples))
    return np.asarray(sampling.uniforms(keys, jnp.asarray(positions), jnp.float32))


def test_every_part_of_a_sequences_identity_counts_and_its_slot_does_not():
    base = dict(seed=1, rollout=2, prompt_ids=[3, 4], samples=[5, 5], positions=[6, 6])
    first = draws(**base)
    np.testing.assert_array_equal(draws(**{**base, "prompt_ids": [4, 3]}), first[::-1])
    for name, other in (("seed", 2), ("rollout", 1), ("prompt_ids", [7, 8]), ("samples", [6, 6]), ("positions", [7, 7])):
        assert (draws(**{**base, name: other}) != first).all(), name


def test_samples_and_positions_follow_the_distribution_independently():
    """Chi-square of 20,000 first tokens (p = 1e-4: 47.6 for 17 degrees of freedom), and of pairs of positions."""
    n, logits = 20_000, np.random.default_rng(3).normal(size=18).astype(np.float32)
    rows = jnp.broadcast_to(logits, (n, 18))
    drawn = []
    for position in (0, 1):
        u = draws(0, 0, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.full(n, position, np.int32))
        assert (u >= 0).all() and (u < 1).all()
        drawn.append(np.asarray(sample(rows, u, plain())[0]))
    p = softmax(logits.astype(float))
    counts = np.bincount(drawn[0], minlength=18)
    assert ((counts - n * p) ** 2 / (n * p)).sum() < 47.6
    pairs = np.zeros((2, 2))
    best = np.argmax(p)
    np.add.at(pairs, tuple((d == best).astype(int) for d in drawn), 1)
    q = np.array([1 - p[best], p[best]])
    expected = n * q[:, None] * q
    assert ((pairs - expected) ** 2 / expected).sum() < 21.1  # p = 1e-4, 3 degrees of freedom
