"""R1-Zero's recipes on Qwen bases: the paper's numbers, and the arithmetic of their head comments."""

import re
from pathlib import Path

import pytest
from paper_arithmetic import H800, SHARE, check_paper_s_rl, check_rollouts, head, held, number, states

from r1jax import config
from r1jax.models.published import PUBLISHED, count
from r1jax.pipeline.runner.walk import make_stages
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES

CONFIGS = Path(__file__).parents[2] / "configs"
# name -> (a published architecture of these shapes, updates, sequences of each, tokens of each as the head assumes)
ZEROS = {
    "qwen2_5_1_5b": ("qwen2.5-math-1.5b", 1_000, 256, 1_000),
    "qwen2_5_7b": ("qwen2.5-math-7b", 2_000, 512, 2_000),
    "qwen2_5_32b": ("qwen2.5-32b", 10_000, 512, 6_000),
    "qwen2_math_7b": ("qwen2.5-math-7b", 10_000, 512, 1_000),
}


def test_there_is_a_recipe_for_each_base():
    assert {path.stem for path in (CONFIGS / "zero").glob("*.yaml")} == ZEROS.keys()


@pytest.mark.parametrize("name", ZEROS)
def test_a_zero_s_recipe(name):
    shape, steps, sequences, tokens = ZEROS[name]
    path = CONFIGS / "zero" / f"{name}.yaml"
    recipe, said, model = config.load_recipe(str(path)), head(path), PUBLISHED[shape].config
    make_stages(recipe)
    (stage,) = recipe.stages
    settings = stage.settings
    assert stage.kind == "grpo" and settings.rewards == {"accuracy": 1.0, "format": 1.0}
    assert {source.template for source in [*recipe.data.values(), *recipe.benchmarks.values()]} == {"r1_zero"}
    assert settings.steps == steps
    assert settings.prompts_per_rollout * settings.samples_per_prompt == sequences * settings.minibatches
    assert (settings.temperature, settings.samples_per_prompt, settings.reference_every) == (1.0, 16, 400)
    assert settings.loss.kl_coefficient == 1e-3
    check_rollouts(stage, recipe.mesh)
    if "math" in name:
        assert settings.max_tokens + settings.max_prompt_tokens <= model.max_position_embeddings == 4_096
    assert f"r1jax run configs/zero/{name}.yaml" in said and recipe.models["base"].path in said
    assert "has not been run at this size" in said and ("our choice" in said or name == "qwen2_5_32b")

    # The bytes.
    mesh = recipe.mesh
    assert number(re.search(r"16 a parameter, ([\d.]+) GB", said)[1]) == pytest.approx(
        held(model, TRAIN_RULES, mesh, 16), abs=0.06
    )
    assert number(re.search(r"reference in bfloat16 ([\d.]+) GB", said)[1]) == pytest.approx(
        held(model, TRAIN_RULES, mesh, 2), abs=0.06
    )
    sampling = re.search(r"for sampling [\w ]+ in bfloat16, ([\d.]+) GB", said)[1]
    assert number(sampling) == pytest.approx(held(model, ROLLOUT_RULES, mesh, 2), abs=0.06)
    row, gigabytes = re.search(r"packed row of ([\d,]+) tokens ([\d.]+) GB", said).groups()
    assert number(row) == settings.row_tokens and number(gigabytes) == pytest.approx(
        states(model, settings.row_tokens), abs=0.06
    )
    each, lanes = re.search(r"([\d,]+) a token of cache: .*?GB for the (\d+) lanes", said).groups()
    cache = 2 * 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim // mesh.tensor
    assert number(each) == cache
    held_lanes = settings.sampler.rows // (mesh.data * mesh.fsdp) * settings.sampler.lanes
    assert int(lanes) == held_lanes
    room = held_lanes * settings.max_tokens * cache / 1e9
    assert number(re.search(r"lane, ([\d.]+) GB for", said)[1]) == pytest.approx(room, abs=0.6)
    assert held(model, TRAIN_RULES, mesh, 16) + held(model, ROLLOUT_RULES, mesh, 2) + room < 141

    # The cost.
    n, d, flops = map(number, re.search(r"12 x (\S+) parameters x (\S+) sampled .*? = (\S+) FLOPs", said).groups())
    parameters = count(model).total
    expected = 12 * parameters * steps * sequences * tokens
    assert n == pytest.approx(parameters, rel=0.01) and d == pytest.approx(steps * sequences * tokens, rel=0.01)
    assert flops == pytest.approx(expected, rel=0.01)
    hours, of_mesh = map(number, re.search(r"([\d,.]+) hours of an H200, ([\d,.]+) hours of the mesh", said).groups())
    assert hours == pytest.approx(expected / (SHARE * H800) / 3600, rel=0.01)
    assert of_mesh == pytest.approx(hours / (mesh.data * mesh.fsdp * mesh.tensor), rel=0.02)


def test_qwen_32b_has_the_paper_s_numbers():
    """Supplement: learning rate 2e-6, KL 1e-3, T 1, 16 samples, 32,768 tokens, 512 an update, reference every 400, over 10,000
    updates; Table 6 of the first report."""
    recipe = config.load_recipe(str(CONFIGS / "zero/qwen2_5_32b.yaml"))
    check_paper_s_rl(recipe.stages[0].settings, 2e-6)
    assert recipe.stages[0].settings.steps == 10_000
    assert all((b.temperature, b.top_p, b.max_tokens) == (0.6, 0.95, 32_768) for b in recipe.benchmarks.values())
    assert {b.samples for b in recipe.benchmarks.values()} == {64, 16}
    said = head(CONFIGS / "zero/qwen2_5_32b.yaml")
    assert "AIME 2024 pass@1 47.0, cons@64 60.0; MATH-500 91.6; GPQA Diamond 55.0; LiveCodeBench 40.2" in said
    assert "AIME 2024 pass@1 22.3, AIME 2025 18.1" in head(CONFIGS / "zero/qwen2_math_7b.yaml")
