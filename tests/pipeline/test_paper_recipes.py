"""The recipes at the paper's own size: its numbers, what their stages refuse, and the arithmetic of their head comments."""

import math
import re
from pathlib import Path

import jax
import pytest

from r1jax import config
from r1jax.models import abstract_params, logical_axes
from r1jax.models.published import PUBLISHED, count
from r1jax.pipeline.runner.walk import make_stages
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES

CONFIGS = Path(__file__).parents[2] / "configs"
H800 = 989e12  # bfloat16 FLOP/s, as an H200's
SHARE = 0.039  # of it: R1-Zero's published hours against its FLOPs
# name -> (a published architecture of these shapes, updates, sequences of each, tokens of each as the head assumes)
ZEROS = {
    "qwen2_5_1_5b": ("qwen2.5-math-1.5b", 1_000, 256, 1_000),
    "qwen2_5_7b": ("qwen2.5-math-7b", 2_000, 512, 2_000),
    "qwen2_5_32b": ("qwen2.5-32b", 10_000, 512, 6_000),
    "qwen2_math_7b": ("qwen2.5-math-7b", 10_000, 512, 1_000),
}


def head(path):
    return " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))


def number(text):
    return float(text.replace(",", ""))


def held(model, rules, mesh, each):
    """GB on a device of parameters of so many bytes each; every dimension that a table spreads must divide."""
    sizes = {"data": mesh.data, "fsdp": mesh.fsdp, "tensor": mesh.tensor}
    leaves = jax.tree.leaves(abstract_params(model))
    named = jax.tree.leaves(logical_axes(model), is_leaf=lambda x: isinstance(x, tuple))
    total = 0.0
    for leaf, axes in zip(leaves, named, strict=True):
        parts = 1
        for length, axis in zip(leaf.shape, axes, strict=True):
            spread = rules.get(axis) or ()
            shards = math.prod(sizes[name] for name in ([spread] if isinstance(spread, str) else spread))
            assert length % shards == 0, (axis, length, shards)
            parts *= shards
        total += leaf.size * each / parts
    return total / 1e9


def states(model, row_tokens):
    """GB of the hidden states that one packed row leaves for the backward pass, in bfloat16."""
    return model.num_hidden_layers * row_tokens * model.hidden_size * 2 / 1e9


def check_rollouts(stage, mesh):
    """What must divide: rows over the mesh, checkpoints and refreshes over rollouts."""
    settings = stage.settings
    shards = mesh.data * mesh.fsdp
    assert settings.rows_per_microbatch % shards == 0 and settings.sampler.rows % shards == 0
    assert settings.checkpoint_every % settings.minibatches == 0
    assert settings.prompts_per_rollout % settings.prompts_per_wave == 0
    if settings.row_tokens:  # else the longest prompt and the cap
        assert settings.max_prompt_tokens + settings.max_tokens <= settings.row_tokens


def check_paper_s_rl(settings, lr):
    """Nature 645:633: 32 prompts of 16 samples an update, 8,192 sequences a rollout in 16 minibatches."""
    assert (settings.prompts_per_rollout, settings.samples_per_prompt, settings.minibatches, settings.epochs) == (
        512,
        16,
        16,
        1,
    )
    assert (settings.temperature, settings.max_tokens, settings.reference_every) == (1.0, 32_768, 400)
    assert (settings.loss.kl, settings.loss.kl_coefficient, settings.loss.surrogate) == ("k3", 1e-3, "clip")
    assert (settings.optimizer.lr, settings.optimizer.schedule, settings.optimizer.warmup_steps) == (lr, "constant", 0)
    assert (settings.advantages.normalize, settings.aggregation) == ("std", "sequence_mean")


# ---------------------------------------------------------------------------------------------- R1-Zero on Qwen bases
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


# ---------------------------------------------------------------------------------------------- the 671B's stages
REASONING = CONFIGS / "r1_671b" / "reasoning.yaml"


@pytest.fixture(scope="module")
def recipe():
    return config.load_recipe(str(REASONING))


@pytest.fixture(scope="module")
def stages(recipe):
    return {stage.name: stage for stage in recipe.stages}


def test_the_graph_is_the_paper_s(recipe, stages):
    make_stages(recipe)
    edges = [(name, stage.kind, stage.inputs["model"], stage.inputs["data"]) for name, stage in stages.items()]
    assert edges == [
        ("zero", "grpo", "base", "zero_prompts"),
        ("cold_start", "cold_start", "stage:zero", "cold_start_prompts"),
        ("dev1", "sft", "base", "stage:cold_start"),
        ("dev2", "grpo", "stage:dev1", "rl_prompts"),
        ("rejection_sampling", "rejection_sampling", "stage:dev2", "sft_prompts"),
        ("dev3", "sft", "base", "stage:rejection_sampling"),
    ]
    assert stages["cold_start"].inputs["rewriter"] == stages["rejection_sampling"].inputs["judge"] == "v3"
    assert stages["rejection_sampling"].inputs["general"] == "general"


def test_r1_zero_has_the_paper_s_numbers(stages):
    """10,400 updates; the cap of 32,768 tokens becomes 65,536 at 8,200."""
    settings = stages["zero"].settings
    check_paper_s_rl(settings, 3e-6)
    assert settings.steps == 10_400 and settings.max_tokens_at == {8_200: 65_536}
    assert settings.rewards == {"accuracy": 1.0, "format": 1.0}
    assert (settings.loss.clip_low, settings.loss.clip_high) == (10.0, 10.0)
    # 26 refreshes of the reference in 650 rollouts.
    assert settings.steps // settings.minibatches == 650 and settings.steps // settings.reference_every == 26


def test_reasoning_rl_has_the_paper_s_numbers(stages):
    """As R1-Zero, bound 10, language consistency as a third part of the sum."""
    settings = stages["dev2"].settings
    check_paper_s_rl(settings, 3e-6)
    assert (settings.loss.clip_low, settings.loss.clip_high) == (10.0, 10.0)
    assert settings.rewards == {"accuracy": 1.0, "think_format": 1.0, "language": 1.0}
    assert not settings.max_tokens_at


@pytest.mark.parametrize("name", ["dev1", "dev3"])
def test_fine_tuning_has_the_paper_s_numbers(stages, name):
    """B.4.2: from V3-Base, 2 to 3 epochs, cosine from 5e-5 to 5e-6, 32,768 tokens, 128 sequences."""
    settings = stages[name].settings
    assert stages[name].inputs["model"] == "base" and (settings.epochs, settings.steps) == (2, 0)
    assert (settings.batch_sequences, settings.max_tokens, settings.row_tokens) == (128, 32_768, 32_768)
    assert (settings.optimizer.lr, settings.optimizer.schedule) == (5e-5, "cosine")
    assert settings.optimizer.lr * settings.optimizer.final_lr_ratio == pytest.approx(5e-6)


def test_the_data_are_mixed_as_the_paper_s(stages):
    """600,000 to 200,000; the domains of reasoning as in Table 5."""
    settings = stages["rejection_sampling"].settings
    assert settings.general_share == 0.25
    assert settings.selection.domain_weights == {"math": 395_285, "code": 211_129, "stem": 10_124, "logic": 10_395}
    assert sum(settings.selection.domain_weights.values()) + 177_812 == 804_745
    assert {"language", "paragraphs", "code"} <= set(settings.filters)
    cold = stages["cold_start"].settings
    assert cold.temperature == 1.0 and {"language", "repetition"} <= set(cold.filters) and cold.form == "zero"


def test_the_benchmarks_are_asked_as_the_paper_does(recipe, stages):
    assert all((b.temperature, b.top_p, b.max_tokens) == (0.6, 0.95, 32_768) for b in recipe.benchmarks.values())
    samples = {name: b.samples for name, b in recipe.benchmarks.items()}
    assert samples == {
        "zero_aime24": 64,
        "zero_math500": 16,
        "zero_curve": 16,
        "aime24": 64,
        "math500": 16,
        "gpqa_diamond": 64,
        "livecodebench": 8,
    }
    for name, stage in stages.items():
        for benchmark in stage.benchmarks:
            assert benchmark.startswith("zero") == (name == "zero"), "R1-Zero is asked in its own template"


def test_the_671b_s_bytes_are_as_it_says(recipe, stages):
    said, model, mesh = head(REASONING), PUBLISHED["deepseek-v3"].config, recipe.mesh
    assert mesh.data * mesh.fsdp * mesh.tensor == 1_024
    for name in ("zero", "dev2"):
        check_rollouts(stages[name], mesh)
    for name in ("dev1", "dev3"):
        assert stages[name].settings.rows_per_microbatch % mesh.fsdp == 0
    trained, sampled = held(model, TRAIN_RULES, mesh, 16), held(model, ROLLOUT_RULES, mesh, 2)
    reference = held(model, TRAIN_RULES, mesh, 2)
    assert f"{trained:.1f} GB; the reference in bfloat16 {reference:.1f} GB" in said
    assert f"for sampling a 64th of the model in bfloat16, {sampled:.1f} GB" in said
    rows = [stages["zero"].settings.max_prompt_tokens + cap for cap in (32_768, 65_536)]
    short, long = (states(model, row) for row in rows)
    assert f"row of {rows[0]:,} tokens {short:.1f} GB of hidden states, of one of {rows[1]:,} {long:.1f} GB" in said
    latent = model.latent.kv_lora_rank + model.latent.qk_rope_head_dim
    token = latent * 2 * model.num_hidden_layers
    lanes = stages["zero"].settings.sampler.lanes
    cache = token * 65_536 * lanes / 1e9
    assert f"{token:,} a token of latent cache" in said and f"{cache:.1f} GB for {lanes} lanes of 65,536 tokens" in said
    assert stages["zero"].settings.sampler.rows == mesh.fsdp, "one prompt's lanes on each row of chips"
    assert trained + reference + long < 95 and trained * 12 / 16 + reference + sampled + cache < 95
    total = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model)))
    assert f"is {12 * total / 1e12:.1f} TB" in said


def test_the_671b_s_costs_are_as_it_says(stages):
    said, n = head(REASONING), count(PUBLISHED["deepseek-v3"].config).active
    assert f"N = {n:.2e}".replace("e+", "e") in said
    zero = 12 * n * stages["zero"].settings.steps * 512 * 6_000
    assert zero / H800 / 3600 / 101_000 == pytest.approx(SHARE, rel=0.01)
    dev2 = stages["dev2"].settings.steps * 512 * 6_000
    cold, rejection = stages["cold_start"].settings, stages["rejection_sampling"].settings
    expected = {  # FLOPs per N, sampled or learnt tokens, the share of peak
        "R1-Zero": (12, stages["zero"].settings.steps * 512 * 6_000, None),
        "cold start": (2, cold.prompts * cold.samples_per_prompt * 8_000, SHARE),
        "Dev1": (6, cold.prompts * cold.selection.per_prompt * 5_355.3 * stages["dev1"].settings.epochs, 0.4),
        "Dev2": (12, dev2, SHARE),
        "rejection sampling": (2, 160_000 * rejection.samples_per_prompt * 6_000, SHARE),
        "Dev3": (6, 804_745 * 5_355.3 * stages["dev3"].settings.epochs, 0.4),
    }
    for name, (factor, tokens, share) in expected.items():
        line = re.search(rf"- {name}: {factor} N D = (\S+) .*?for D = (\S+) .*?(?= - |An estimate)", said)
        assert number(line[1]) == pytest.approx(factor * n * tokens, rel=0.01), name
        assert number(line[2]) == pytest.approx(tokens, rel=0.01), name
        if share:
            hours = number(re.search(r"\), ([\d,]+) hours", line[0])[1])
            assert hours == pytest.approx(factor * n * tokens / (share * H800) / 3600, rel=0.04), name
    # Enough for the paper's 626,933 of reasoning, if at most a half of the samples is kept.
    assert 160_000 * rejection.selection.per_prompt >= 626_933
    assert "has not been run at this size" in said and "r1jax run configs/r1_671b/reasoning.yaml" in said


def test_the_671b_s_results_are_the_paper_s():
    """Table 2 of the article."""
    said = head(REASONING)
    for row in (
        "AIME 2024 77.9 | 59.0 | 74.0 | 78.1",
        "MATH-500 95.9 | 94.2 | 95.9 | 95.4",
        "GPQA Diamond 75.8 | 66.1 | 70.7 | 71.2",
        "LiveCodeBench 50.0 | 57.5 | 63.5 | 64.6",
    ):
        assert row in said
