"""Each known mistake, made in a copy of the package, is caught by the kit; the package itself passes the same checks."""

import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks, mutants, mutated, oracle_host

FULL = {**checks.NUMBERS, "entropy_coefficient": 0.07, "kl": "k3"}
# The compositions that between them read every line of the policy loss, those that most mistakes show in first.
COMPOSITIONS = [
    {**FULL},
    {**FULL, "surrogate": "dual_clip", "kl": "k3_unbiased", "off_policy_delta": 0.15, "correction": "mask"},
    {**FULL, "ratio": "sequence", "correction": "truncate", "correction_level": "sequence", "kl": "k2"},
    {**FULL, "ratio": "sequence_token", "surrogate": "none", "correction": "reject", "correction_level": "geometric"},
    {**FULL, "ratio": "geometric", "surrogate": "none", "kl": "k1"},
    {**FULL, "surrogate": "cispo", "off_policy_delta": 0.15},
    {**FULL, "surrogate": "sapo", "kl": "none"},
    {**FULL, "surrogate": "dual_clip", "correction": "truncate"},
    *({**FULL, "correction": "mask", "off_policy_delta": delta} for delta in (0.05, 0.3, 0.6)),
]


def check_policy(L):
    for seed, choice in enumerate(COMPOSITIONS):
        checks.composition(L, choice, seed=seed)
    checks.composition(L, COMPOSITIONS[0], sequences=checks.extreme_sequences())
    checks.own_part_that_is_nan_on_zeros(L)


def refused(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except ValueError:
        return
    raise AssertionError("was not refused")


def check_advantages(L):
    rewards = np.array([[0.1, 0.1, 0.1, 9], [0, 1, 2, 7], [1, 0, 0, 1], [0, 3, 1, 2], [2, 2, 2, 2], [5, 4, 3, 4.0]])
    graded = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]], bool)
    groups = [[float(r) if g else None for r, g in zip(*pair)] for pair in zip(rewards, graded)]
    given = np.where(graded, rewards, np.nan)
    for normalize in ("std", "none", "batch_std", "rloo", "batch", "batch_baseline"):
        for ddof, epsilon in ((0, 0.0), (1, 0.1)):
            found = L.group_advantages(given, graded, normalize=normalize, ddof=ddof, epsilon=epsilon)
            np.testing.assert_allclose(found, oracle_host.advantages(groups, normalize, ddof, epsilon), rtol=1e-6, atol=1e-7)
    expected = oracle_host.gdpo({"a": groups, "b": groups[::-1]}, {"a": 1.0}, 1, 0.1)
    np.testing.assert_allclose(
        L.gdpo_advantages({"a": given}, {"a": 1.0}, graded, epsilon=0.1), expected, rtol=1e-5, atol=1e-6
    )
    everyone = {"a": rewards.tolist(), "b": (rewards**2)[::-1].tolist()}
    found = L.gdpo_advantages({name: np.asarray(part) for name, part in everyone.items()}, {"a": 1.0, "b": 0.3})
    np.testing.assert_allclose(found, oracle_host.gdpo(everyone, {"a": 1.0, "b": 0.3}, 1, 1e-6), rtol=1e-5, atol=1e-6)
    refused(L.group_advantages, np.array([[1.0, np.inf]]))
    found = L.token_returns(np.array([5.0]), np.array([[9.0, 1, 2]]), np.array([[0, 1, 1]]), np.zeros((1, 3), int))
    assert found.tolist() == [[0, 2, 3]]
    np.testing.assert_allclose(
        L.whiten(np.array([1.0, 3.0, np.nan]), np.array([1, 1, 0])), [-(2**-0.5), 2**-0.5, 0], rtol=1e-5
    )


def check_weights(L):
    mask = np.array([[0, 1, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0], [0] * 6])
    index = np.array([[4, 4, 4, 2, 0, 0], [2, 2, 2, 2, -1, -1], [-1] * 6])
    include = [True, False, True, False, True]
    for rule in ("sequence_mean", "token_mean", "constant_length"):
        for given, lengths in (
            (None, {0: 1, 2: 3, 4: 2}),
            (include, {0: 1, 2: 3, 4: 2}),
            ([True] * 4 + [False], {0: 1, 2: 3, 4: None}),
        ):
            found = L.token_weights(mask, index, rule=rule, length=5, include=given)
            expected = dict(zip(lengths, oracle_host.weights(list(lengths.values()), rule, 5)))
            for b, t in np.ndindex(mask.shape):
                np.testing.assert_allclose(found[b, t], expected[index[b, t]] if mask[b, t] else 0, rtol=1e-6)


def check_others(L):
    """By hand, one number each; the files beside this one go through them all."""
    one = np.ones(1)

    def same(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    same(L.sft_loss(np.array([[-2.0]]), np.array([[0.5]]))[0], 1.0)
    said = -np.arange(1.0, 9).reshape(2, 1, 4)  # depth 1 of tokens 2 and 3: 3 + 4; depth 2 of token 3: 8
    same(L.mtp_loss(said, np.ones((1, 4)), np.arange(4)[None], coefficient=0.5)[0], 0.25 * 15)
    scores, experts = np.array([[[1.0, 3.0, 4.0], [2.0, 1.0, 1.0]]]), np.array([[[0, 1], [0, 2]]])
    balance = 1.5 * (1 * (1 / 8 + 1 / 2) / 2 + 0.5 * (3 / 8 + 1 / 4) / 2 + 0.5 * (1 / 2 + 1 / 4) / 2)

    def balanced(x):
        return L.sequence_balance_loss(x, experts, np.full((1, 2), 0.5), coefficient=1.0)[0]

    same(balanced(scores), balance)
    assert checks.slope(balanced, scores, (0, 0, 0)) > 1e-3
    same(L.router_bias_update(np.zeros(2, np.float32), np.float32([3, 1]), rate=0.5), [-0.5, 0.5])
    same(L.pairwise_reward_loss(3 * one, one, one, margin=0.5)[0], np.log1p(np.exp(-1.5)))
    same(L.pointwise_reward_loss(3 * one, 0.25 * one, one)[0], 0.25 * np.log1p(np.exp(-3)) + 0.75 * np.log1p(np.exp(3)))
    gap = 0.5 * ((-3 + 4) - (-5 + 2))
    smooth = 0.8 * np.log1p(np.exp(-gap)) + 0.2 * np.log1p(np.exp(gap))
    same(L.dpo_loss(-3 * one, -5 * one, -4 * one, -2 * one, one, beta=0.5, label_smoothing=0.2)[0], smooth)
    x, y = np.log([[[0.25, 0.75]]]), np.log([[[0.5, 0.5]]])
    same(L.forward_kl(x, y), [[0.5 * np.log(4 / 3)]])
    same(L.reverse_kl(x, y), [[0.25 * np.log(0.5) + 0.75 * np.log(1.5)]])
    m = 0.2 * np.exp(y) + 0.8 * np.exp(x)
    js = 0.2 * np.sum(np.exp(y) * (y - np.log(m))) + 0.8 * np.sum(np.exp(x) * (x - np.log(m)))
    np.testing.assert_allclose(L.generalised_js(x, y, 0.2), [[js]], rtol=1e-4)
    hot = L.logit_distillation_loss(x, y, np.ones((1, 1)), temperature=2.0)[0]
    p = np.exp(x[0, 0] / 2) / np.exp(x[0, 0] / 2).sum()
    np.testing.assert_allclose(hot, np.sum(0.5 * np.log(0.5 / p)), rtol=1e-4)
    assert checks.slope(lambda z: L.logit_distillation_loss(jnp.asarray(x), z, np.ones((1, 1)))[0], y, (0, 0, 0)) == 0
    same(L.on_policy_distillation_advantages(x, y), x - y)
    merged = L.merge_metrics([{"weight": 1.0, "a": 1.0, "b_max": 3.0}, {"weight": 3.0, "a": 5.0, "b_max": 2.0}])
    assert merged == {"weight": 4.0, "a": 4.0, "b_max": 3.0}


CHECKS = {"policy": check_policy, "advantages": check_advantages, "weights": check_weights, "others": check_others}
MUTANTS = (
    [("policy", *mutant) for mutant in mutants.POLICY]
    + [("advantages", words, "advantages.py", *mutant) for words, *mutant in mutants.ADVANTAGES]
    + [("weights", words, "weights.py", *mutant) for words, *mutant in mutants.WEIGHTS]
    + [("others", *mutant) for mutant in mutants.OTHERS]
)


@pytest.mark.parametrize("area", CHECKS)
def test_the_package_and_an_unchanged_copy_pass(losses, area):
    CHECKS[area](losses)
    CHECKS[area](mutated.load({}))


@pytest.mark.parametrize("area, words, file, before, after", MUTANTS, ids=[m[1] for m in MUTANTS])
def test_caught(area, words, file, before, after):
    mutant = mutated.replaced(file, before, after)
    try:
        CHECKS[area](mutant)
    except Exception:  # an error in the midst of it is as loud as a wrong number
        return
    pytest.fail(f"a copy of the losses in which {words} passes")
