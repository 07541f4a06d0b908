"""configs/tiny/r1.yaml, the whole of the paper's graph, at the smallest size at which every stage still has something to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1jax import config

TINY = Path(__file__).parents[2] / "configs" / "tiny"
RECIPE = TINY / "r1.yaml"
EDGES = {  # the figure of the paper; data sets and models that are given, not made, are named as in the recipe
    "zero": {"model": "base", "data": "zero_prompts"},
    "cold_start": {"model": "stage:zero", "data": "zero_prompts"},
    "dev1": {"model": "base", "data": "stage:cold_start"},
    "dev2": {"model": "stage:dev1", "data": "prompts"},
    "judge": {"model": "base", "data": "judgements"},
    "rejection_sampling": {"model": "stage:dev2", "data": "reasoning", "judge": "stage:judge", "general": "assistant"},
    "dev3": {"model": "base", "data": "stage:rejection_sampling"},
    "pairs": {"model": "stage:dev3", "data": "requests", "judge": "stage:judge"},
    "helpfulness": {"model": "stage:dev3", "data": "stage:pairs", "held_out": "pairs_test"},
    "safety": {"model": "stage:dev3", "data": "responses", "held_out": "responses_test"},
    "r1": {
        "model": "stage:dev3",
        "data": "prompts",
        "general": "assistant_prompts",
        "helpfulness": "stage:helpfulness",
        "safety": "stage:safety",
    },
    "qwen_student": {"model": "qwen", "data": "stage:rejection_sampling"},
    "llama_student": {"model": "llama", "data": "stage:rejection_sampling"},
}
ONLY_TINY = {"judge", "qwen_student", "llama_student"}  # V3 judges the big one; its students are recipes of their own
SMALL = {
    "grpo": {"steps": 2, "prompts_per_rollout": 4, "samples_per_prompt": 2, "max_tokens": 32, "checkpoint_every": 2},
    "sft": {"steps": 2, "optimizer.lr": 1e-5},  # the base answers one in ten right, and judges after a fashion: both stay
    "cold_start": {"prompts": 64, "samples_per_prompt": 2, "max_tokens": 32},
    "rejection_sampling": {"prompts": 64, "samples_per_prompt": 2, "max_tokens": 32, "general_share": 0.9},
    "preference_pairs": {"prompts": 32, "samples_per_prompt": 4, "least_difference": 0.0, "balance_lengths": False},
    "reward_model": {"steps": 2, "batch_examples": 4},
}


def graph(path):
    """Each stage's kind and inputs. What is given and what judges or rewrites is but there or not: names may differ."""
    recipe = config.load_recipe(str(path))
    given = {name: "a model" for name in recipe.models} | {name: "a data set" for name in recipe.data}

    def edges(stage):
        judges = {key: "a judge" for key in ("judge",) if stage.inputs.get(key)}
        named = {key: given.get(value, value) for key, value in stage.inputs.items() if value and key != "rewriter"}
        return stage.kind, named | judges

    return {stage.name: edges(stage) for stage in recipe.stages}


def test_the_graph_is_the_paper_s():
    stages = {stage.name: stage for stage in config.load_recipe(str(RECIPE)).stages}
    assert {name: {key: value for key, value in stage.inputs.items() if value} for name, stage in stages.items()} == EDGES
    assert list(stages) == list(EDGES)


def test_the_graph_is_that_of_the_paper_s_size():
    tiny, whole = graph(RECIPE), graph(TINY.parent / "r1_671b.yaml")
    assert {name: edges for name, edges in tiny.items() if name not in ONLY_TINY} == whole
    judges = {stage.inputs.get("judge") for stage in config.load_recipe(str(TINY.parent / "r1_671b.yaml")).stages}
    assert judges - {None, ""} == {"v3"}


def smallest():
    """``--set`` arguments."""
    recipe = config.load_recipe(str(RECIPE))
    changes = {
        f"benchmarks.{name}.{key}": value for name in recipe.benchmarks for key, value in (("limit", 4), ("samples", 2))
    }
    for stage in recipe.stages:
        changes |= {f"stages.{stage.name}.{key}": value for key, value in SMALL[stage.kind].items()}
    changes |= {"stages.dev3.steps": 40, "stages.dev3.optimizer.lr": 2e-3}  # else no answer has a summary to compare
    changes |= {"stages.r1.general_from": 1, "stages.r1.evaluate_every": 0}
    return [f"--set={key}={json.dumps(value)}" for key, value in changes.items()]


@pytest.mark.slow
def test_the_whole_graph_at_its_smallest(tmp_path):
    command = [sys.executable, "-m", "r1jax.cli", "run", str(RECIPE), f"--workdir={tmp_path / 'r1'}", *smallest()]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=os.environ | {"XLA_FLAGS": ""})
    assert finished.returncode == 0, finished.stderr
    workdir = tmp_path / "r1"
    recipe = config.load_recipe(str(RECIPE))
    results = {stage["name"]: stage for stage in json.loads((workdir / "results.json").read_text())}
    assert list(results) == [stage.name for stage in recipe.stages]
    for stage in recipe.stages:
        for when in ("before", "after"):
            assert set(stage.benchmarks) <= set(results[stage.name][when]), stage.name
    compared = [each for each in json.loads((workdir / "comparisons.json").read_text()) if each["what"]]
    assert [each["what"] for each in compared] == [each.what for each in recipe.comparisons]
    for data in ("cold_start", "rejection_sampling", "pairs"):
        assert (workdir / "stages" / data / "data.jsonl").read_text().count("\n") > 0
    report = (workdir / "report.html").read_text()
    assert all(f">{stage.name}<" in report for stage in recipe.stages)
