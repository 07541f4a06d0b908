"""Group advantages against the formulas, and what must be exactly zero."""

import numpy as np
import pytest

from r1jax.losses import group_advantages


@pytest.mark.parametrize("normalize", ["std", "none", "batch_std", "rloo"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_the_formula(oracle, normalize, ddof, seed):
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.1, 1.0, 2.0], (6, 4))
    graded = rng.random((6, 4)) < 0.7
    graded[0] = [True, False, False, False]
    graded[1] = False
    graded[2], rewards[2] = True, [0, 1, 1, 2]
    groups = [[float(r) if g else None for r, g in zip(*pair)] for pair in zip(rewards, graded)]
    expected = oracle.advantages(groups, normalize, ddof, 1e-3)
    rewards[~graded] = np.nan  # what an ungraded sample holds is not read
    found = group_advantages(rewards, graded, normalize=normalize, ddof=ddof, epsilon=1e-3)
    assert found.dtype == np.float32 and np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_the_paper_s_case_by_hand():
    found = group_advantages(np.array([[1.0, 0.0, 0.0, 0.0]]), epsilon=0.0)
    np.testing.assert_allclose(found, [[1.5, -0.5, -0.5, -0.5]], rtol=1e-6)


@pytest.mark.parametrize("normalize", ["std", "none", "batch_std", "rloo"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.0])
def test_equal_rewards_lone_samples_and_ungraded_groups_have_exactly_zero(normalize, epsilon):
    rewards = np.array([[0.1, 0.1, 0.1], [0.7, 0.3, 0.9]])
    graded = np.array([[True, True, True], [False, True, False]])
    assert (group_advantages(rewards, graded, normalize=normalize, epsilon=epsilon) == 0).all()
    assert (group_advantages(np.array([[3.0]]), normalize=normalize, epsilon=epsilon) == 0).all()
    assert group_advantages(np.zeros((0, 4)), normalize=normalize, epsilon=epsilon).shape == (0, 4)


def test_a_group_does_not_see_another_one():
    one, two = np.array([[0.0, 1.0, 5.0]]), np.array([[9.0, 1.0, 2.0]])
    together = group_advantages(np.concatenate([one, two]))
    assert (together[:1] == group_advantages(one)).all() and (together[1:] == group_advantages(two)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_refused_by_name(bad):
    rewards = np.zeros((3, 2))
    rewards[2, 1] = bad
    with pytest.raises(ValueError, match=f"prompt 2, sample 1 is {bad}"):
        group_advantages(rewards)


@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"normalize": "zscore"}, "'zscore' is unknown; known: std, none, batch_std, rloo"),
        ({"ddof": 2}, "ddof must be 0 or 1, not 2"),
        ({"epsilon": -1.0}, "epsilon must not be negative"),
        ({"epsilon": float("nan")}, "epsilon must not be negative"),
        ({"graded": np.ones(4)}, r"not \(2, 2\) and \(4,\)"),
    ],
)
def test_bad_input_is_named(keywords, words):
    with pytest.raises(ValueError, match=words):
        group_advantages(np.zeros((2, 2)), **keywords)
