"""Recipes: numbers as people write them, unknown keys, overrides, the graph."""

import copy

import pytest
import yaml

from r1jax import config

DOCUMENT = {
    "name": "x",
    "models": {"base": {"path": "p"}},
    "data": {"train": {"path": "q"}},
    "benchmarks": {"held_out": {"path": "r"}},
    "stages": [
        {"name": "zero", "kind": "grpo", "model": "base", "data": "train", "benchmarks": ["held_out"], "steps": 4},
        {"name": "more", "kind": "grpo", "model": "stage:zero", "data": "train"},
    ],
}


def read(*overrides):
    return config.read_recipe(config.apply_overrides(copy.deepcopy(DOCUMENT), overrides))


@pytest.mark.parametrize("text, value", [("3e-6", 3e-6), ("1e-4", 1e-4), (".5", 0.5), ("10_000", 10_000.0), ("2", 2.0)])
def test_numbers_are_read_by_their_type(text, value):
    document = yaml.safe_load(f"lr: {text}")
    assert config.read_dataclass(config.OptimizerSettings, document, "optimizer").lr == value
    assert read(f"stages.zero.optimizer.lr={text}").stages[0].settings.optimizer.lr == value


def test_defaults_are_the_papers():
    settings = config.GRPOSettings()
    assert (settings.prompts_per_rollout, settings.samples_per_prompt, settings.minibatches) == (512, 16, 16)
    assert (settings.optimizer.lr, settings.loss.kl_coefficient, settings.reference_every) == (3e-6, 1e-3, 400)


def test_a_resolved_recipe_reads_back_equal():
    recipe = read("stages.zero.max_tokens_at={100: 64}")
    assert recipe.stages[0].settings.max_tokens_at == {100: 64}
    assert config.read_recipe(yaml.safe_load(config.dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    "override, message",
    [
        ("stages.zero.stesp=3", "did you mean 'steps'"),
        ("stages.zero.optimizer.lrr=1", "did you mean 'lr'"),
        ("stages.zer.steps=1", "did you mean 'zero'"),
        ("stages.zero.kind=grp", "did you mean 'grpo'"),
        ("stages.zero.model=bas", "did you mean 'base'"),
        ("stages.zero.model=stage:more", "no earlier stage"),
        ("stages.zero.steps=many", "must be a number"),
        ("stages.zero.steps=1.5", "whole number"),
        ("stages.zero.optimizer.lr=.nan", "finite"),
        ("stages.zero.benchmarks=[held]", "did you mean 'held_out'"),
        ("stages.more.name=zero", "two stages"),
        ("modles.base.path=x", "did you mean 'models'"),
        ("stages.zero.rewards=[accuracy]", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_named(override, message):
    with pytest.raises(config.RecipeError, match=message):
        read(override)


@pytest.mark.parametrize("kind", ["benchmarks", "models", "data", "stages", "recipe"])
@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", ".hidden", "a\\b", "-x", "a:b", "a\nb", "x" * 101, "数" * 34, " a"])
def test_names_that_no_folder_can_have_are_refused(kind, name):
    document = copy.deepcopy(DOCUMENT)
    if kind == "recipe":
        document["name"] = name
    elif kind == "stages":
        document["stages"][0]["name"] = name
    else:
        document[kind][name] = {"path": "p"}
    with pytest.raises(config.RecipeError, match="letters, digits, - and _|lacks name"):
        config.read_recipe(document)


def test_names_of_any_script_are_taken():
    document = copy.deepcopy(DOCUMENT)
    document["benchmarks"]["数学 v1.5+"] = {"path": "p"}
    assert "数学 v1.5+" in config.read_recipe(document).benchmarks


def test_where_nothing_is_known_that_is_said():
    with pytest.raises(config.RecipeError, match="no earlier stage 'nowhere'; there are none$"):
        read("stages.zero.model=stage:nowhere")
    with pytest.raises(config.RecipeError, match="no earlier stage 'more'; it is listed here or later, put it before$"):
        read("stages.zero.model=stage:more")


def test_a_users_kind_brings_its_settings(tmp_path, monkeypatch):
    (tmp_path / "my_stage.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass S:\n    depth: int = 3\nclass Mine:\n    settings = S\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    document = {**DOCUMENT, "stages": [{"name": "own", "kind": "my_stage:Mine", "model": "base", "depth": "7"}]}
    assert config.read_recipe(document).stages[0].settings.depth == 7
    with pytest.raises(config.RecipeError, match="can't be imported"):
        config.read_recipe({**DOCUMENT, "stages": [{"name": "own", "kind": "my_stage:Nothing"}]})


def test_differences_name_the_stage():
    old, new = config.to_document(read()), config.to_document(read("stages.more.optimizer.lr=1"))
    assert config.differences(old, new) == [("stages.more.optimizer.lr", 3e-6, 1.0)]


STAGES = {
    "policy": {"kind": "grpo", "model": "base", "data": "d"},
    "pairs": {"kind": "preference_pairs", "model": "base", "judge": "base", "data": "d"},
    "help": {"kind": "reward_model", "model": "base", "data": "d"},
    "examples": {"kind": "rejection_sampling", "model": "base", "data": "d"},
}


@pytest.mark.parametrize(
    "last, message",
    [
        (
            {"kind": "sft", "model": "stage:pairs", "data": "d"},
            "model: stage 'pairs' makes pairs, and language models are wanted",
        ),
        ({"kind": "grpo", "model": "stage:help", "data": "d"}, "stage 'help' makes reward models"),
        (
            {"kind": "sft", "model": "base", "data": "stage:pairs"},
            "data: stage 'pairs' makes pairs, and examples are wanted",
        ),
        ({"kind": "reward_model", "model": "base", "data": "stage:examples"}, "pairs are wanted"),
        (
            {"kind": "reward_model", "objective": "pointwise", "model": "base", "data": "stage:pairs"},
            "data: stage 'pairs' makes pairs, and labelled responses are wanted here; objective pairwise learns from pairs",
        ),
        (
            {"kind": "reward_model", "objective": "pointwise", "model": "base", "data": "d", "held_out": "stage:pairs"},
            "held_out: stage 'pairs' makes pairs, and labelled responses are wanted",
        ),
        (
            {"kind": "reward_model", "objective": "pointwise", "model": "base", "data": "stage:examples"},
            "stage 'examples' makes examples, and labelled responses are wanted",
        ),
        (
            {"kind": "grpo", "model": "base", "data": "d", "helpfulness": "stage:policy", "rewards": {"helpfulness": 1}},
            "helpfulness: stage 'policy' makes language models, and reward models are wanted",
        ),
        (
            {"kind": "grpo", "model": "base", "data": "d", "rewards": {"safety": 1}},
            "the reward 'safety' needs an input safety",
        ),
        (
            {"kind": "grpo", "model": "base", "data": "d", "judge": "base"},
            "no reward judge or judge_preference has a weight",
        ),
        (
            {"kind": "grpo", "model": "base", "data": "d", "general": "d", "steps": 5, "general_from": 5},
            "general never joins: general_from is 5 of 5 steps",
        ),
        ({"kind": "grpo", "model": "base", "data": "d", "general": "d", "general_share": 0}, "general never joins"),
    ],
)
def test_what_a_stage_makes_is_what_the_next_one_takes(last, message):
    document = {"name": "r", "models": {"base": {"path": "m"}}, "data": {"d": {"path": "d"}}}
    document["stages"] = [{"name": name, **stage} for name, stage in STAGES.items()]
    config.read_recipe(document)
    document["stages"].append({"name": "last", **last})
    with pytest.raises(config.RecipeError, match=message):
        config.read_recipe(document)


def test_another_form_of_a_benchmark_that_is_not_there_is_refused():
    stage = {"name": "zero", "kind": "grpo", "model": "base", "data": "d"}
    document = {
        "name": "r",
        "models": {"base": {"path": "m"}},
        "data": {"d": {"path": "d"}},
        "benchmarks": {"test": {"path": "t"}, "zero_test": {"path": "t", "same_as": "tset"}},
        "stages": [stage],
    }
    with pytest.raises(config.RecipeError, match="benchmarks.zero_test.same_as: no benchmark 'tset'.*test"):
        config.read_recipe(document)
