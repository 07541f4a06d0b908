"""A recipe's loss and advantages become those of r1jax.losses."""

import numpy as np
import pytest

from r1jax.config import AdvantageSettings, LossSettings, RecipeError
from r1jax.losses import PolicyLoss, gdpo_advantages, group_advantages, unclipped_surrogate
from r1jax.pipeline.grpo.objective import policy_loss, rollout_advantages
from r1jax.rewards import RewardRecord, Verdict


def record(accuracy, form):
    return RewardRecord({"accuracy": accuracy, "format": form}, Verdict.RIGHT if accuracy else Verdict.WRONG, "")


RECORDS = [record(*parts) for parts in [(1, 0), (0, 1), (0, 0), (1, 1), (0, 0.5), (None, 1), (1, 0), (0, 0)]]
WEIGHTS = {"accuracy": 1.0, "format": 0.5}
TYPES = ["all"] * 8


def test_the_default_loss_is_grpo_s():
    assert policy_loss(LossSettings()) == PolicyLoss()


def test_a_user_s_function_stands_in_a_part_s_place():
    loss = policy_loss(LossSettings(surrogate="r1jax.losses:unclipped_surrogate", kl="none"))
    assert loss == PolicyLoss(surrogate=unclipped_surrogate, kl="none")


@pytest.mark.parametrize(
    "name", ["r1jax.losses:unclipped_surogate", "nowhere.at_all:f", "r1jax.losses.policy.ratio:LOG_RATIO_BOUND"]
)
def test_what_is_no_function_is_refused_by_name(name):
    with pytest.raises(RecipeError, match="loss.surrogate"):
        policy_loss(LossSettings(surrogate=name))


@pytest.mark.parametrize("rule", ["std", "none", "batch_std", "rloo", "batch", "batch_baseline"])
def test_advantages_are_of_the_mixed_reward(rule):
    advantages, graded = rollout_advantages(RECORDS, TYPES, {"all": WEIGHTS}, 4, AdvantageSettings(normalize=rule, ddof=0))
    rewards = np.array([[1, 0.5, 0, 1.5], [0.25, 9, 1, 0]])
    want = np.array([[True] * 4, [True, False, True, True]])
    np.testing.assert_array_equal(graded, want)
    np.testing.assert_array_equal(advantages, group_advantages(rewards, want, normalize=rule, ddof=0))


def test_each_prompt_has_its_types_weights():
    weights = {"reasoning": WEIGHTS, "general": {"format": 2.0}}
    types = ["reasoning"] * 4 + ["general"] * 4
    advantages, graded = rollout_advantages(RECORDS, types, weights, 4, AdvantageSettings(normalize="none"))
    np.testing.assert_array_equal(graded, np.ones((2, 4), bool))  # a general prompt needs no accuracy
    want = group_advantages(np.array([[1, 0.5, 0, 1.5], [1, 2, 0, 0]]), graded, normalize="none")
    np.testing.assert_array_equal(advantages, want)


def test_gdpo_looks_at_the_parts_that_have_a_weight():
    weights = {**WEIGHTS, "length": 0.0}
    records = [RewardRecord({**r.parts, "length": None}, r.verdict, "") for r in RECORDS]
    advantages, graded = rollout_advantages(records, TYPES, {"all": weights}, 4, AdvantageSettings(normalize="gdpo"))
    parts = {"accuracy": np.array([[1, 0, 0, 1], [0, 9, 1, 0]]), "format": np.array([[0, 1, 0, 1], [0.5, 1, 0, 0]])}
    np.testing.assert_array_equal(advantages, gdpo_advantages(parts, WEIGHTS, graded))
    assert advantages[1, 1] == 0 and not graded[1, 1] and advantages[0].any()
