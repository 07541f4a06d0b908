"""Rewards that models give: asked for the prompts whose type weighs them, recorded with the rules', never asked twice."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from r1jax import checkpoint, config
from r1jax.models import ModelConfig, abstract_params
from r1jax.pipeline.grpo import GRPOStage
from r1jax.pipeline.grpo.model_rewards import ModelRewards, rule_parts
from r1jax.rewards import mix
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict
from r1jax.rollout import SamplingStopped
from r1jax.scoring.parts import Scored

WEIGHTS = {"reasoning": {"accuracy": 1.0}, "general": {"helpfulness": 1.0, "safety": 0.0}, "safety": {"safety": 2.0}}


class Fake:
    def __init__(self, name, value):
        self.name, self.value, self.asked, self.warm = name, value, [], 0

    def score(self, requests):
        self.asked.append([request.row["n"] for request in requests])
        return [Scored(self.value(request.row["n"])) for request in requests]

    def warm_up(self, should_stop=None):
        if should_stop is not None and should_stop():
            raise SamplingStopped
        self.warm += 1


def requests(types):
    return [RewardRequest({"n": i, "type": t}, "", "") for i, t in enumerate(types)]


def test_each_part_is_asked_for_its_own_prompts_in_one_call():
    helpful, safe = Fake("helpfulness", float), Fake("safety", lambda n: None if n == 3 else np.inf)
    rewards = ModelRewards([helpful, safe], lambda row: row["type"], WEIGHTS)
    scored = rewards(requests(["general", "reasoning", "general", "safety", "safety"]))
    found = [{name: each.value for name, each in own.items()} for own in scored]
    assert scored[0]["safety"].reason == "reward safety: the model gave inf"
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
    with pytest.raises(SamplingStopped):
        rewards.warm_up(lambda: helpful.warm == 2)
    assert (helpful.warm, safe.warm) == (2, 1)


def test_the_pool_is_not_asked_for_them():
    assert rule_parts(("accuracy", "helpfulness", "judge_preference", "my:own")) == ("accuracy", "my:own")


def test_a_part_that_loses_values_is_an_error():
    class Short(Fake):
        def score(self, requests):
            return [Scored(1.0)]

    with pytest.raises(ValueError, match="'helpfulness' gave 1 values to 2 requests"):
        ModelRewards([Short("helpfulness", float)], lambda row: row["type"], WEIGHTS)(requests(["general"] * 2))


# ---------------------------------------------------------------------------------------------- models that can't reward
TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizers" / "bpe"
CARD = {"objective": "pairwise", "reads": "final_summary", "template": "Q: {prompt}\n", "lowest": -7.5}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """``exported(vocabulary, labels)``: a model's directory, with the tokenizer, which writes ids up to 705, and a card."""

    def export(vocabulary=706, labels=1):
        folder = tmp_path_factory.mktemp("models") / "m"
        made = ModelConfig("qwen2", vocabulary, 16, 16, 1, 2, 2, 8, qkv_bias=True, num_labels=labels)
        params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_params(made))
        checkpoint.export_model(folder, made, params, TOKENIZER, np.float32)
        (folder / "reward_model.json").write_text(json.dumps(CARD))
        return folder

    return export


def checked(folder, tmp_path):
    rows = [{"problem": "How many apples?", "template": "none", "type": "general"}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_type = {"reasoning": {"accuracy": 1}, "general": {"helpfulness": 1}}
    stage = GRPOStage("r1", config.read_dataclass(config.GRPOSettings, {"rewards_by_type": by_type}, "stage"))
    inputs = {"general": config.DataSource(str(tmp_path / "prompts.jsonl"), grader="none"), "helpfulness": str(folder)}
    stage.check(inputs)


def test_a_model_that_cannot_reward_is_refused_before_anything_is_computed(exported, tmp_path):
    good = exported()
    checked(good, tmp_path)
    with pytest.raises(config.RecipeError, match="stages.r1.helpfulness: .* is a language model and gives no scores"):
        checked(exported(labels=0), tmp_path)
    with pytest.raises(config.RecipeError, match="its tokenizer writes id .*, its embedding has 100 rows"):
        checked(exported(vocabulary=100), tmp_path)
    for lacking, message in (
        ("reward_model.json", "has no reward_model.json, which says how a reward model is asked"),
        ("tokenizer.json", "stages.r1.helpfulness: .* has no tokenizer; put its tokenizer.json"),
    ):
        shutil.copytree(good, folder := tmp_path / lacking)
        (folder / lacking).unlink()
        with pytest.raises(ValueError, match=message):
            checked(folder, tmp_path)
    (good / "reward_model.json").write_text(json.dumps({**CARD, "template": "chat"}))
    settings = json.loads((good / "tokenizer_config.json").read_text())
    (good / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "chat_template"}))
    with pytest.raises(config.RecipeError, match="stages.r1.helpfulness: .*chat template"):
        checked(good, tmp_path)
