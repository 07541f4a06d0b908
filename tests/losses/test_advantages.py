"""Advantages and returns against the oracle, what must be exactly zero, and what is refused."""

import warnings

import numpy as np
import pytest
from losskit import oracle_host

RULES = ("std", "none", "batch_std", "rloo", "batch", "batch_baseline")


def rollout(seed):
    """Rewards and who is graded: full groups, equal ones, lone samples, a group without any."""
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.1, 1.0, 2.0, -3.5], (7, 4))
    graded = rng.random((7, 4)) < 0.7
    graded[0] = [True, False, False, False]
    graded[1] = False
    graded[2], rewards[2] = True, [0, 1, 1, 2]
    graded[3], rewards[3] = True, 0.1
    groups = [[float(r) if g else None for r, g in zip(*pair)] for pair in zip(rewards, graded)]
    return np.where(graded, rewards, np.nan), graded, groups  # what an ungraded sample holds is not read


@pytest.mark.parametrize("normalize", RULES)
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("epsilon", [1e-3, 0.5])
def test_the_formula(losses, normalize, ddof, epsilon):
    for seed in range(4):
        rewards, graded, groups = rollout(seed)
        with np.errstate(all="raise"):
            found = losses.group_advantages(rewards, graded, normalize=normalize, ddof=ddof, epsilon=epsilon)
        assert found.dtype == np.float32 and np.abs(found).max() > 0.1
        np.testing.assert_allclose(found, oracle_host.advantages(groups, normalize, ddof, epsilon), rtol=1e-6, atol=1e-7)


def test_the_paper_s_case_by_hand_and_the_defaults(losses):
    found = losses.group_advantages(np.array([[1.0, 0.0, 0.0, 0.0]]), epsilon=0.0)
    np.testing.assert_allclose(found, [[1.5, -0.5, -0.5, -0.5]], rtol=1e-6)
    rewards, graded, groups = rollout(1)
    np.testing.assert_allclose(
        losses.group_advantages(rewards * 1e-4, graded),
        oracle_host.advantages([[r and r * 1e-4 for r in g] for g in groups], "std", 1, 1e-6),
        rtol=1e-6,
        atol=1e-7,
    )


def test_a_batch_of_two_has_a_spread(losses):
    for normalize in ("std", "batch_std", "batch", "batch_baseline"):
        found = losses.group_advantages(np.array([[1.0, 3.0]]), normalize=normalize, epsilon=0.0)
        np.testing.assert_allclose(found, [[-(2**-0.5), 2**-0.5]], rtol=1e-6)


def test_leave_one_out_by_hand(losses):
    found = losses.group_advantages(np.array([[3.0, 0.0, 9.0]]), normalize="rloo")
    np.testing.assert_allclose(found, [[3 - 4.5, 0 - 6, 9 - 1.5]])


@pytest.mark.parametrize("normalize", [rule for rule in RULES if rule != "batch"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.0])
def test_equal_rewards_lone_samples_and_ungraded_groups_have_exactly_zero(losses, normalize, epsilon):
    rewards = np.array([[0.1] * 4, [0.7, 0.3, 0.9, 0.1], [0.3] * 4, [-0.1] * 4, [np.nan] * 4])
    graded = np.array([[1, 1, 1, 1], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    with np.errstate(all="raise"):
        assert (losses.group_advantages(rewards, graded, normalize=normalize, epsilon=epsilon) == 0).all()
    assert (losses.group_advantages(np.array([[3.0]]), normalize=normalize, epsilon=epsilon) == 0).all()
    assert losses.group_advantages(np.zeros((0, 4)), normalize=normalize, epsilon=epsilon).shape == (0, 4)
    lone = losses.group_advantages(np.array([[3.0], [5.0]]), normalize=normalize, epsilon=epsilon)
    assert (lone == 0).all()


@pytest.mark.parametrize("normalize", RULES)
def test_rewards_that_are_all_equal_teach_nothing(losses, normalize):
    for epsilon in (0.0, 1e-6):
        found = losses.group_advantages(np.full((3, 7), 0.1), normalize=normalize, epsilon=epsilon)
        assert (found == 0).all()
        one = np.zeros((2, 3), bool)
        one[1, 1] = True
        with np.errstate(all="raise"), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (losses.group_advantages(np.ones((2, 3)), one, normalize=normalize, epsilon=epsilon) == 0).all()


def test_a_group_does_not_see_another_one(losses):
    one, two = np.array([[0.0, 1.0, 5.0]]), np.array([[9.0, 1.0, 2.0]])
    for normalize in ("std", "none", "rloo"):
        together = losses.group_advantages(np.concatenate([one, two]), normalize=normalize)
        assert (together[:1] == losses.group_advantages(one, normalize=normalize)).all()
        assert (together[1:] == losses.group_advantages(two, normalize=normalize)).all()


def test_whole_numbers_and_truth_values_are_rewards(losses):
    expected = losses.group_advantages(np.array([[1.0, 0.0, 1.0]]))
    assert (losses.group_advantages(np.array([[1, 0, 1]])) == expected).all()
    assert (losses.group_advantages(np.array([[True, False, True]]), np.ones((1, 3), int)) == expected).all()


@pytest.mark.parametrize("ddof, epsilon", [(1, 1e-6), (0, 0.25)])
@pytest.mark.parametrize("weights", [{"right": 1.0, "format": 0.5}, {"format": -2.0}])
def test_gdpo(losses, ddof, epsilon, weights):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        right, graded, groups = rollout(seed)
        form = rng.choice([0.0, 0.5, 1.0], right.shape)
        parts = {"right": right, "format": form, "unread": np.full(right.shape, np.nan)}
        lists = {"right": groups, "format": [[x if g else None for x, g in zip(*p)] for p in zip(form.tolist(), graded)]}
        found = losses.gdpo_advantages(parts, weights, graded, ddof=ddof, epsilon=epsilon)
        assert found.dtype == np.float32 and np.abs(found).max() > 0.1
        np.testing.assert_allclose(found, oracle_host.gdpo(lists, weights, ddof, epsilon), rtol=1e-5, atol=1e-6)
    everyone = losses.gdpo_advantages({"right": form}, {"right": 1.0})
    np.testing.assert_allclose(everyone.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(everyone.std(ddof=1), 1, rtol=1e-5)
    expected = oracle_host.gdpo({"right": (form * 1e-5).tolist()}, {"right": 1.0}, 1, 1e-6)
    np.testing.assert_allclose(
        losses.gdpo_advantages({"right": form * 1e-5}, {"right": 1.0}), expected, rtol=1e-5, atol=1e-6
    )


def test_gdpo_tells_apart_what_a_sum_of_rewards_does_not(losses):
    """As in the paper's figure 2: (0, 2) and (0, 1) are one group to GRPO; the former knows two rewards, not one."""
    right, form = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])
    summed = losses.group_advantages(right + form)
    np.testing.assert_allclose(summed[0], summed[1], rtol=1e-5)
    apart = losses.gdpo_advantages({"right": right, "format": form}, {"right": 1.0, "format": 1.0})
    assert apart[0, 1] > 1.5 * apart[1, 1] > 0


@pytest.mark.parametrize("layout", ["one to a row", "packed", "backwards"])
def test_returns_to_go(losses, layout):
    rng = np.random.default_rng(0)
    lengths = [3, 1, 0, 4, 2]
    penalties, rewards = [rng.normal(size=n) for n in lengths], rng.normal(size=6)
    rewards[2] = np.nan  # of a sequence without tokens
    rows = {"one to a row": [[i] for i in range(5)], "packed": [[0, 1, 2, 4], [3]], "backwards": [[4, 3], [1, 0]]}[layout]
    mask, index, values = np.zeros((6, 20)), np.full((6, 20), -1), np.full((6, 20), np.nan)
    for b, row in enumerate(rows):
        start = 0
        for i in row:
            n = lengths[i]
            mask[b, start + 1 : start + 1 + n], index[b, start : start + 1 + n] = 1, i  # after one prompt token
            values[b, start + 1 : start + 1 + n] = penalties[i]
            start += n + 2
    found = losses.token_returns(rewards, values, mask, index)
    assert found.dtype == np.float64 and (found[mask == 0] == 0).all()
    for i in (0, 1, 3, 4):
        expected = oracle_host.returns(rewards[i], penalties[i])
        np.testing.assert_allclose(found[(index == i) & (mask > 0)], expected, rtol=1e-12)
    assert (losses.token_returns(rewards, values, np.zeros((6, 20)), index) == 0).all()
    assert losses.token_returns(np.zeros(0), np.zeros((1, 2)), np.zeros((1, 2)), -np.ones((1, 2), int)).tolist() == [[0, 0]]


@pytest.mark.parametrize("ddof, epsilon", [(1, 1e-6), (0, 0.3)])
def test_whitening(losses, ddof, epsilon):
    rng = np.random.default_rng(0)
    values, mask = rng.normal(2.0, 3.0, (3, 5)), rng.random((3, 5)) < 0.7
    values[~mask] = np.nan
    found = losses.whiten(values, mask, ddof=ddof, epsilon=epsilon)
    assert (found[~mask] == 0).all() and found.dtype == np.float64
    np.testing.assert_allclose(found[mask], oracle_host.whitened(values[mask].tolist(), ddof, epsilon), rtol=1e-10)
    np.testing.assert_allclose(
        losses.whiten(values, mask)[mask], oracle_host.whitened(values[mask].tolist(), 1, 1e-6), rtol=1e-10
    )
    tiny = np.array([1e-6, 2e-6, 4e-6])
    np.testing.assert_allclose(losses.whiten(tiny, np.ones(3)), oracle_host.whitened(tiny.tolist(), 1, 1e-6), rtol=1e-10)
    for equal in (np.full((1, 3), 0.1), np.zeros((0, 3))):
        assert (losses.whiten(equal, np.ones(equal.shape), epsilon=0.0) == 0).all()
    assert (losses.whiten(np.array([3.0, 1.0]), np.array([0.5, 0])) == 0).all()  # one value tells nothing


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_refused_by_name(losses, bad):
    rewards = np.zeros((3, 2))
    rewards[2] = bad
    with pytest.raises(ValueError, match=rf"reward of prompt 2, sample 0 is {bad} \(2 such\); mark it ungraded"):
        losses.group_advantages(rewards)
    with pytest.raises(ValueError, match=f"reward 'right' of prompt 2, sample 0 is {bad}"):
        losses.gdpo_advantages({"right": rewards}, {"right": 1.0})
    mask, index = np.ones((1, 3)), np.zeros((1, 3), int)
    with pytest.raises(ValueError, match="NaN or infinite; take its sequence out"):
        losses.token_returns(np.array([bad]), np.zeros((1, 3)), mask, index)
    with pytest.raises(ValueError, match="NaN or infinite; take its sequence out"):
        losses.token_returns(np.zeros(1), np.full((1, 3), bad), mask, index)


@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"normalize": "zscore"}, "'zscore' is unknown; known: std, none, batch_std, rloo"),
        ({"ddof": 2}, "ddof must be 0 or 1, not 2"),
        ({"epsilon": -1.0}, "epsilon must not be negative"),
        ({"epsilon": float("nan")}, "epsilon must not be negative"),
        ({"graded": np.ones(4)}, r"not \(2, 2\) and \(4,\)"),
        ({"rewards": np.zeros(4)}, r"\[prompts, samples\] and graded alike, not \(4,\)"),
    ],
)
def test_bad_input_is_named(losses, keywords, words):
    with pytest.raises(ValueError, match=words):
        losses.group_advantages(**{"rewards": np.zeros((2, 2)), **keywords})


def test_bad_input_of_the_others_is_named(losses):
    two = np.zeros((2, 2))
    for parts, weights, words in (
        ({"a": two}, {}, "at least one weight"),
        ({"a": two}, {"b": 1.0}, "no rewards for weight 'b'; there are a"),
        ({}, {"b": 1.0}, "there are none"),
        ({"a": two, "b": np.zeros((3, 2))}, {"a": 1.0, "b": 1.0}, r"reward 'b' has shape \(3, 2\), the others \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            losses.gdpo_advantages(parts, weights)
    with pytest.raises(ValueError, match="must agree"):
        losses.token_returns(np.zeros(1), np.zeros((1, 3)), np.ones((1, 3)), np.zeros((1, 2), int))
    with pytest.raises(ValueError, match="must agree"):
        losses.token_returns(np.zeros(1), np.zeros((1, 2)), np.ones((1, 3)), np.zeros((1, 3), int))
    for index in (-1, 1, 2):
        with pytest.raises(ValueError, match="outside the 1 rewards"):
            losses.token_returns(np.zeros(1), two, np.ones((2, 2)), np.full((2, 2), index))
