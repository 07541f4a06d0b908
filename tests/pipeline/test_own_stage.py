"""Stages of a user's own in the places of built-in ones: pairs by a rule, and a reward model that is another's, changed.

The pairs prefer answers without R1-Zero's format, so the reward model is against what the base does right: RL with it is reward
hacking from its first update on, which the monitors must see.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from r1jax import config
from r1jax.data.preferences import check_pairs
from r1jax.pipeline.runner.walk import make_stages
from r1jax.scoring.reward_model import read_card

TINY = Path(__file__).parents[2] / "configs" / "tiny"
STAGES = '''
import json
import shutil
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load_file, save_file

from r1jax.data import load_prompts
from r1jax.pipeline.stage import Artefacts


@dataclass(frozen=True)
class PairsSettings:
    prompts: int = 48


class Pairs:
    settings = PairsSettings

    def __init__(self, name, settings):
        self.settings = settings

    def run(self, inputs, workdir, context):
        rows = []
        for row in load_prompts(inputs["data"])[: self.settings.prompts]:
            numbers = "+".join(map(str, row.row["numbers"]))
            inside = f"<think>{numbers}</think><answer>{numbers}</answer>"
            rows.append({"problem": row.problem, "template": row.template, "chosen": numbers, "rejected": inside})
        (workdir / "pairs.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
        return Artefacts(data=str(workdir / "pairs.jsonl"), figures={"pairs": len(rows)})


@dataclass(frozen=True)
class ScaledSettings:
    factor: float = 1.0


class Scaled:
    """A reward model with its scores times a factor."""

    settings = ScaledSettings

    def __init__(self, name, settings):
        self.settings = settings

    def run(self, inputs, workdir, context):
        model = workdir / "model"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(inputs["model"], model)
        weights = load_file(model / "model.safetensors")
        weights["score.weight"] = (weights["score.weight"] * np.float32(self.settings.factor)).astype(np.float32)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        card = json.loads((model / "reward_model.json").read_text())
        card["lowest"] *= self.settings.factor
        (model / "reward_model.json").write_text(json.dumps(card))
        return Artefacts(model=str(model))
'''
LEARNING = {"max_tokens": 96, "row_tokens": 128, "rows_per_microbatch": 4, "remat": "none"}
RECIPE = {
    "name": "own",
    "models": {"base": {"path": str(TINY / "base")}},
    "data": {"prompts": {"path": str(TINY / "world" / "search-train.jsonl"), "limit": 64}},
    "logging": {"tensorboard": False, "report_every": 0},
    "stages": [
        {"name": "pairs", "kind": "hostile:Pairs", "data": "prompts"},
        {"name": "learnt", "kind": "reward_model", "model": "base", "data": "stage:pairs", "reads": "whole_response"}
        | {"steps": 16, "batch_examples": 8, "optimizer": {"lr": 1e-3}}
        | LEARNING,
        {"name": "helpfulness", "kind": "hostile:Scaled", "model": "stage:learnt", "factor": 2.0},
        {"name": "r1", "kind": "grpo", "model": "base", "data": "prompts", "helpfulness": "stage:helpfulness"}
        | {"rewards": {"helpfulness": 1.0}, "hacking": {"window": 3, "stop_after": 2}}
        | {"steps": 20, "prompts_per_rollout": 8, "samples_per_prompt": 8, "minibatches": 1, "checkpoint_every": 0}
        | {"optimizer": {"lr": 1e-3, "b2": 0.95}, "loss": {"kl": "none", "kl_coefficient": 0.0}}
        | {"sampler": {"rows": 8, "lanes": 8, "chunk": 16, "prompt_bucket": 32, "completion_bucket": 48}}
        | {"workers": {"count": 1}, "max_prompt_tokens": 32}
        | LEARNING
        | {"max_tokens": 48, "rows_per_microbatch": 8},
    ],
}


@pytest.fixture
def home(tmp_path):
    (tmp_path / "hostile.py").write_text(STAGES)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def test_pairs_of_the_users_own_are_what_a_reward_model_learns_from(home, monkeypatch):
    """The graph lets them stand where a built-in kind's stood, and what they leave is read as theirs."""
    monkeypatch.syspath_prepend(home)
    recipe = config.load_recipe(str(home / "recipe.yaml"))
    own = make_stages(recipe)[0]
    (home / "pairs").mkdir()
    made = own.run({"data": recipe.data["prompts"]}, home / "pairs", None)
    check_pairs(config.DataSource(made.data))
    assert made.figures == {"pairs": 48} == {"pairs": recipe.stages[0].settings.prompts}


@pytest.mark.slow
def test_own_stages_in_the_places_of_built_in_ones_and_a_reward_that_is_hacked(home):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-m", "r1jax.cli", "run", str(home / "recipe.yaml"), "--workdir", str(home / "run")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert process.returncode == 0, process.stderr
    stages = home / "run/stages"

    learnt, scaled = (stages / name / "model" for name in ("learnt", "helpfulness"))
    heads = [load_file(model / "model.safetensors")["score.weight"] for model in (learnt, scaled)]
    np.testing.assert_array_equal(heads[1], 2 * heads[0])  # doubled: no rounding
    assert read_card(scaled).lowest == 2 * read_card(learnt).lowest and read_card(scaled).reads == "whole_response"

    updates = [json.loads(f.read_text()) for f in sorted((stages / "r1/updates").glob("*/metrics.json"))]
    assert updates[-1]["model_reward_helpfulness"] > updates[0]["model_reward_helpfulness"] + 2
    assert updates[-1]["scored_format"] < 0.2 < 0.6 < updates[0]["scored_format"], "the base writes R1-Zero's format"
    # Two windows of three rollouts, then a second one with an alarm: not the twenty that were asked for.
    assert len(updates) == 7 and [u["hacking_alarms"] > 0 for u in updates[-2:]] == [True, True]
    alarms = json.loads((stages / "r1/alarms.json").read_text())
    assert set(alarms) == {"5", "6"} and any("format fell" in reason for reason in alarms["6"])
    *_, entry = json.loads((home / "run/results.json").read_text())
    assert "format fell" in entry["figures"]["stopped_early"] and entry["steps"] == 7
    assert "stopped after 7 updates, 2 rollouts with alarms" in process.stderr
    assert "the reward rises (helpfulness" in (home / "run/report.html").read_text()
    assert (stages / "r1/model/model.safetensors").exists()
