"""Rewards that models give: asked for the prompts whose type weighs them, recorded with the rules', never asked twice."""

import numpy as np
import pytest

from r1jax.pipeline.grpo.model_rewards import ModelRewards, rule_parts
from r1jax.rewards import mix
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict

WEIGHTS = {"reasoning": {"accuracy": 1.0}, "general": {"helpfulness": 1.0, "safety": 0.0}, "safety": {"safety": 2.0}}


class Fake:
    def __init__(self, name, value):
        self.name, self.value, self.asked, self.warm = name, value, [], 0

    def __call__(self, requests):
        self.asked.append([request.row["n"] for request in requests])
        return [self.value(request.row["n"]) for request in requests]

    def warm_up(self):
        self.warm += 1


def requests(types):
    return [RewardRequest({"n": i, "type": t}, "", "") for i, t in enumerate(types)]


def test_each_part_is_asked_for_its_own_prompts_in_one_call():
    helpful, safe = Fake("helpfulness", float), Fake("safety", lambda n: None if n == 3 else np.inf)
    rewards = ModelRewards([helpful, safe], lambda row: row["type"], WEIGHTS)
    found = rewards(requests(["general", "reasoning", "general", "safety", "safety"]))
    # A part of weight 0 is logged; what is not finite is not graded.
    none = {"safety": None}
    assert found == [{"helpfulness": 0.0} | none, {}, {"helpfulness": 2.0} | none, none, none]
    assert helpful.asked == [[0, 2]] and safe.asked == [[0, 2, 3, 4]]
    records = [RewardRecord(parts, Verdict.NONE) for parts in (found[0], found[2])]
    rewards_of, graded = mix(records, WEIGHTS["general"])  # which asks for the parts of weight 0 too
    assert rewards_of.tolist() == [0.0, 2.0] and graded.all()
    assert rewards(requests(["reasoning"])) == [{}] and len(helpful.asked) == 1
    rewards.warm_up()
    assert helpful.warm == safe.warm == 1


def test_the_pool_is_not_asked_for_them():
    assert rule_parts(("accuracy", "helpfulness", "judge_preference", "my:own")) == ("accuracy", "my:own")


def test_a_part_that_loses_values_is_an_error():
    class Short(Fake):
        def __call__(self, requests):
            return [1.0]

    with pytest.raises(ValueError, match="'helpfulness' gave 1 values to 2 requests"):
        ModelRewards([Short("helpfulness", float)], lambda row: row["type"], WEIGHTS)(requests(["general"] * 2))
