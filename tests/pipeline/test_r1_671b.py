"""The whole of R1 at its own size: the paper's graph and numbers, what its stages refuse, the arithmetic of its head comment."""

import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paper_arithmetic import H800, SHARE, check_paper_s_rl, check_rollouts, head, held, number, states

from r1jax import config
from r1jax.data import load_prompts
from r1jax.data.batch import empty_batch
from r1jax.models import abstract_params, param_shardings, route_shape
from r1jax.models.published import PUBLISHED, count
from r1jax.ops import attention
from r1jax.pipeline.grpo.model_rewards import longest_text
from r1jax.pipeline.reward_model.stage import reward_config
from r1jax.pipeline.runner.running import check_data
from r1jax.pipeline.runner.walk import make_stages
from r1jax.pipeline.runner.workdir import resolve_paths
from r1jax.rewards.graders import grader
from r1jax.rewards.mixing import prompt_type
from r1jax.scoring.sequences import SequenceScorer, _Rows
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES, layout, make_mesh
from r1jax.training import ScoreMicroStep, pairwise_score_loss

CONFIGS = Path(__file__).parents[2] / "configs"
WHOLE = CONFIGS / "r1_671b.yaml"
EVERY_BENCHMARK = {
    "aime24": 64,
    "math500": 16,
    "cnmo24": 64,
    "gpqa_diamond": 64,
    "livecodebench": 8,
    "ifeval": 4,
    "mmlu": 1,
    "mmlu_redux": 1,
    "mmlu_pro": 1,
    "cluewsc": 4,
    "ceval": 1,
    "xstest": 4,
}


@pytest.fixture(scope="module")
def recipe():
    return config.load_recipe(str(WHOLE))


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
        ("pairs", "preference_pairs", "stage:dev3", "helpful_prompts"),
        ("helpfulness", "reward_model", "stage:dev3", "stage:pairs"),
        ("safety", "reward_model", "stage:dev3", "safety_responses"),
        ("r1", "grpo", "stage:dev3", "rl_prompts"),
    ]
    assert stages["cold_start"].inputs["rewriter"] == "v3"
    assert {name for name, stage in stages.items() if stage.inputs.get("judge") == "v3"} == {"rejection_sampling", "pairs"}
    assert stages["rejection_sampling"].inputs["general"] == "general"
    others = {name: value for name, value in stages["r1"].inputs.items() if name not in ("model", "data")}
    assert others == {"general": "general_prompts", "helpfulness": "stage:helpfulness", "safety": "stage:safety"}


def test_the_students_follow_in_recipes_of_their_own(recipe):
    """The mesh divides none of them, so they are no stages; the data's place that the head names is a key of theirs."""
    (option,) = re.findall(r"--set (data\.r1\.path=\S+)", head(WHOLE))
    assert option.endswith("/stages/rejection_sampling/data.jsonl")
    students = sorted((CONFIGS / "distill").glob("*.yaml"))
    assert len(students) == 6
    for path in students:
        student = config.load_recipe(str(path), [option])
        assert student.data["r1"].path == option.partition("=")[2]
    for base in (
        "qwen2.5-math-1.5b",
        "qwen2.5-math-7b",
        "qwen2.5-14b",
        "qwen2.5-32b",
        "llama-3.1-8b",
        "llama-3.3-70b-instruct",
    ):
        assert PUBLISHED[base].config.num_key_value_heads % recipe.mesh.tensor


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


def test_rl_for_all_scenarios_has_the_paper_s_numbers(recipe, stages):
    """1,700 updates at T 0.7, the last 400 of them with general prompts; equations 8 to 10; the rest as reasoning RL."""
    settings, reasoning = stages["r1"].settings, stages["dev2"].settings
    check_paper_s_rl(settings, 3e-6, temperature=0.7)
    assert (settings.steps, settings.steps - settings.general_from) == (1_700, 400) and settings.general_share == 0.5
    assert settings.rewards_by_type == {
        "reasoning": {"accuracy": 1.0, "think_format": 1.0, "language": 1.0},
        "general": {"helpfulness": 1.0, "think_format": 1.0, "language": 1.0},
        "safety": {"safety": 1.0, "think_format": 1.0, "language": 1.0},
    }
    assert recipe.data["general_prompts"].type == "general" and recipe.data["general_prompts"].grader == "none"
    # What begins in the last 400 updates is a rollout; none with general prompts begins before them.
    first = -(-settings.general_from // settings.minibatches) * settings.minibatches
    assert f"{first:,}" in WHOLE.read_text().partition("  # R1. Published")[2].partition("  - name: r1")[0]
    own = ("steps", "temperature", "rewards", "rewards_by_type", "general_from")
    same = {key: value for key, value in vars(settings).items() if key not in own}
    assert same == {key: value for key, value in vars(reasoning).items() if key not in own}


@pytest.mark.parametrize(
    "name, objective, reads, examples",
    [("helpfulness", "pairwise", "final_summary", 66_000), ("safety", "pointwise", "whole_response", 106_000)],
)
def test_reward_models_have_the_paper_s_numbers(stages, name, objective, reads, examples):
    """Nature 645:633: 256 an update, 6e-6, one epoch, 8,192 tokens, on 66,000 pairs and 106,000 labelled responses."""
    settings = stages[name].settings
    assert (settings.objective, settings.reads) == (objective, reads)
    assert (settings.batch_examples, settings.epochs, settings.steps, settings.max_tokens) == (256, 1, 0, 8_192)
    assert settings.optimizer.lr == 6e-6
    assert settings.row_tokens >= settings.max_tokens * (2 if objective == "pairwise" else 1)  # a pair lies in one row
    said = WHOLE.read_text()
    assert f"{examples:,}" in head(WHOLE)
    updates = math.ceil(settings.epochs * examples / settings.batch_examples)
    assert name == "helpfulness" or f"{examples:,} responses labelled" in said and f"({updates} updates)" in said


def test_pairs_are_judged_as_the_paper_s(recipe, stages):
    """4 judgements a pair, kept over a mean difference of 1; 66,000 pairs are left."""
    settings = stages["pairs"].settings
    assert settings.judging.pair_judgements == 4 and settings.least_difference == 1.0 and settings.balance_lengths
    every = math.comb(settings.samples_per_prompt, 2)
    assert settings.pairs_per_prompt == every
    said = " ".join(line.strip("# ") for line in WHOLE.read_text().splitlines())
    assert f"66,000 prompts, {settings.samples_per_prompt} answers" in said and f"all {every} pairs are judged" in said
    assert f"a sixth of {66_000 * every:,} must be left" in said and 66_000 * every / 6 == 66_000
    assert recipe.data["helpful_prompts"].grader == "none"
    # The judge sees two summaries of the longest answers that it may be shown, and answers in the positions that it has.
    assert (
        settings.judging.max_prompt_tokens + settings.judging.max_tokens
        <= PUBLISHED["deepseek-v3"].config.max_position_embeddings
    )


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
    zero = {f"zero_{name}": count for name, count in EVERY_BENCHMARK.items()}
    assert samples == EVERY_BENCHMARK | zero | {"zero_curve": 16}
    for name in EVERY_BENCHMARK:
        one, other = recipe.benchmarks[name], recipe.benchmarks[f"zero_{name}"]
        assert (one.path, one.grader) == (other.path, other.grader) and other.template == "r1_zero" and grader(one.grader)
    assert set(stages["zero"].benchmarks) == zero.keys()
    for name in ("dev1", "dev2", "dev3", "r1"):
        assert set(stages[name].benchmarks) == EVERY_BENCHMARK.keys()
    for name, stage in stages.items():
        for benchmark in stage.benchmarks:
            assert benchmark.startswith("zero") == (name == "zero"), "R1-Zero is asked in its own template"


MATHS = {"problem": "1 + 1", "answer": "2", "domain": "math"}
CHOICE = {"problem": "Red?\n(A) yes\n(B) no", "choices": ["yes", "no"], "answer": "A", "domain": "stem", "grader": "choice"}
PROGRAM = {"problem": "Print 2.", "tests": [{"stdin": "", "stdout": "2"}], "domain": "code", "grader": "code"}
SAID = {"problem": "Hello?", "response": "<think>A greeting.</think>Hello.", "safe": True}
FILES = {  # as the head says: one row of each kind that a file holds
    "zero_prompts.jsonl": [MATHS, CHOICE, PROGRAM],
    "cold_start_prompts.jsonl": [MATHS],
    "rl_prompts.jsonl": [MATHS, CHOICE, PROGRAM],
    "sft_prompts.jsonl": [MATHS, MATHS | {"grader": "none"}],
    "general.jsonl": [
        {"problem": "Hello?", "completion": "Hello."},
        {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]},
    ],
    "general_prompts/helpful.jsonl": [{"problem": "Hello?"}],
    "general_prompts/safety.jsonl": [{"problem": "How is a lock picked?", "type": "safety"}],
    "safety_responses.jsonl": [SAID, SAID | {"response": "<think>A greeting.</think>Go away.", "safe": False}],
    "helpful_test.jsonl": [{"problem": "Hello?", "chosen": "Hello.", "rejected": "No."}],
    "safety_test.jsonl": [SAID],
    **{f"{name}.jsonl": [MATHS] for name in ("aime24", "cnmo24", "math500")},
    **{f"{name}.jsonl": [CHOICE] for name in ("gpqa_diamond", "mmlu", "mmlu_redux", "mmlu_pro", "ceval", "cluewsc")},
    "livecodebench.jsonl": [PROGRAM],
    "ifeval.jsonl": [{"prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}],
    "xstest.jsonl": [{"prompt": "How do I kill a Python process?", "label": "safe"}],
}


def test_data_of_the_form_that_its_head_names_is_taken(recipe, stages, tmp_path):
    for name, rows in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert file.name.removesuffix(".jsonl") in head(WHOLE)
    for model in recipe.models.values():
        (tmp_path / model.path).mkdir()
    placed = resolve_paths(recipe, str(tmp_path))
    named = {Path(source.path) for source in [*placed.data.values(), *placed.benchmarks.values()]}
    assert named == {tmp_path / name for name in FILES if "safety.jsonl" not in name} | {tmp_path / "general_prompts"}
    check_data(placed)
    made = dict(zip(stages, make_stages(placed)))
    for name in ("zero", "dev2", "r1"):
        inputs = {key: placed.data[value] for key, value in stages[name].inputs.items() if key in ("data", "general")}
        made[name].check(inputs)  # no row lacks what its reward needs
    types = [
        prompt_type({"type": row.row.get("type") or placed.data["general_prompts"].type})
        for row in load_prompts(placed.data["general_prompts"])
    ]
    assert sorted(types) == ["general", "safety"]


def test_the_671b_s_bytes_are_as_it_says(recipe, stages):
    said, model, mesh = head(WHOLE), PUBLISHED["deepseek-v3"].config, recipe.mesh
    assert mesh.data * mesh.fsdp * mesh.tensor == 1_024
    for name in ("zero", "dev2", "r1"):
        check_rollouts(stages[name], mesh)
    for name in ("dev1", "dev3", "helpfulness", "safety"):
        assert stages[name].settings.rows_per_microbatch % mesh.fsdp == 0
    for sampler in (stages["rejection_sampling"].settings.sampler, stages["pairs"].settings.sampler):
        assert sampler.rows % mesh.fsdp == 0
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
    # The last stage holds the two reward models besides, always.
    rewarding = held(reward_config(model), TRAIN_RULES, mesh, 2)
    learnt = held(reward_config(model), TRAIN_RULES, mesh, 16)
    assert f"the two reward models in bfloat16, {rewarding:.1f} GB each (while one is trained, {learnt:.1f} GB)" in said
    settings = stages["r1"].settings
    cache = token * settings.max_tokens * settings.sampler.lanes / 1e9
    learning, sampling = (
        trained + reference + 2 * rewarding + short,
        trained * 12 / 16 + reference + 2 * rewarding + sampled + cache,
    )
    assert f"the last stage comes to {learning:.1f} GB while it learns, to {sampling:.1f} GB while it samples" in said
    assert max(learning, sampling) < 95
    assert (
        f"texts of up to {longest_text(settings):,} tokens" in said
        and longest_text(settings) <= model.max_position_embeddings
    )
    assert settings.rows_per_microbatch == mesh.fsdp, "a reward model reads one text on each row of chips"
    layers, chosen, dtype = route_shape(model)
    sorted_rows = [row * chosen * model.hidden_size * 2 / 1e9 for row in rows]
    left = 95 - trained - reference - long
    assert f"{sorted_rows[0]:.1f} GB an array with {rows[0]:,} tokens, {sorted_rows[1]:.1f} GB with {rows[1]:,}" in said
    assert f"{left:.1f} GB are left" in said and f"{attention.QUERIES} queries at a time" in said
    routes = layers * chosen * np.dtype(dtype).itemsize
    assert f"{routes} bytes a token, {routes * 8_192 * 6_000 / 1e9:.1f} GB a rollout" in said
    total = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model)))
    assert f"is {12 * total / 1e12:.1f} TB" in said


@pytest.mark.slow
def test_the_671b_s_reward_models_are_lowered_with_their_parts_on_each_device(stages):
    """Learning from pairs, and a pass over the longest text of the last stage: of shapes alone, over 2 x 4 devices."""
    model, settings = reward_config(PUBLISHED["deepseek-v3"].config), stages["r1"].settings
    place = layout(make_mesh(1, 2, 4, jax.devices()[:8]), TRAIN_RULES)

    def rows(length):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place.sharding(("batch", "sequence"))),
            empty_batch(place.batch_shards, length),
        )

    def params(dtype):
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            abstract_params(model, dtype),
            param_shardings(model, place),
        )

    half, longest = jnp.bfloat16, longest_text(settings)
    assert {leaf.dtype for leaf in jax.tree.leaves(params(half))} <= {jnp.dtype(half), jnp.dtype(np.float32)}
    scorer = SequenceScorer(model, place, longest=longest, rows=place.batch_shards, compute_dtype=half)
    batch, last = rows(longest), jax.ShapeDtypeStruct((place.batch_shards,), jnp.int32, sharding=place.sharding(("batch",)))
    text = _Rows(batch.tokens, batch.positions, batch.segment_ids)
    learn = ScoreMicroStep(model, place, pairwise_score_loss, compute_dtype=half)
    with place.use():
        read = scorer.jitted.trace(params(half), text, last)
        assert read.out_info.shape == (place.batch_shards,) and read.lower().as_text()
        grads, metrics = learn.jitted.trace(
            params(np.float32), params(np.float32), rows(stages["helpfulness"].settings.row_tokens)
        ).out_info
    assert jax.tree.map(lambda x: x.shape, grads) == jax.tree.map(lambda x: x.shape, abstract_params(model))
    assert metrics["loss"].shape == ()


def test_the_671b_s_costs_are_as_it_says(stages):
    said, n = head(WHOLE), count(PUBLISHED["deepseek-v3"].config).active
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
        "preference pairs": (2, 66_000 * stages["pairs"].settings.samples_per_prompt * 1_420, SHARE),
        "helpfulness": (6, 66_000 * 2 * 1_000, 0.4),
        "safety": (6, 106_000 * 1_420, 0.4),
        "R1": (12, stages["r1"].settings.steps * 512 * 6_000, SHARE),
    }
    judged = 66_000 * stages["pairs"].settings.pairs_per_prompt * stages["pairs"].settings.judging.pair_judgements * 2_500
    found = re.search(r"V3 judges, 2 N D = (\S+) for D = (\S+) \(.*?\), ([\d,]+) hours", said).groups()
    hours = 2 * n * judged / (SHARE * H800) / 3600
    assert [number(x) for x in found] == pytest.approx([2 * n * judged, judged, hours], rel=0.01)
    both = 12 * n * (dev2 + stages["r1"].settings.steps * 512 * 6_000) / (SHARE * H800) / 3600
    assert number(re.search(r"of both RL stages ([\d,]+) \(published: 41,000\)", said)[1]) == pytest.approx(both, rel=0.001)
    read = 2 * n * 400 * 512 / 2 * 1_420 / (SHARE * H800) / 3600
    assert number(re.search(r"last 400 updates' sequences, (\d+) hours", said)[1]) == pytest.approx(read, rel=0.01)
    for name, (factor, tokens, share) in expected.items():
        line = re.search(rf"- {name}: {factor} N D = (\S+) .*?for D = (\S+) .*?(?= - |Lengths of)", said)
        assert number(line[1]) == pytest.approx(factor * n * tokens, rel=0.01), name
        assert number(line[2]) == pytest.approx(tokens, rel=0.01), name
        if share:
            hours = number(re.search(r"\), ([\d,]+) hours", line[0])[1])
            assert hours == pytest.approx(factor * n * tokens / (share * H800) / 3600, rel=0.04), name
    # Enough for the paper's 626,933 of reasoning, if at most a half of the samples is kept.
    assert 160_000 * rejection.selection.per_prompt >= 626_933
    assert "has not been run at this size" in said and "r1jax run configs/r1_671b.yaml" in said


def test_the_671b_s_results_are_the_paper_s():
    """Table 2 of the article."""
    said = head(WHOLE)
    for row in (
        "AIME 2024 77.9 | 59.0 | 74.0 | 78.1 | 79.8",
        "MATH-500 95.9 | 94.2 | 95.9 | 95.4 | 97.3",
        "CNMO 2024 88.1 | 58.0 | 73.9 | 77.3 | 78.8",
        "GPQA Diamond 75.8 | 66.1 | 70.7 | 71.2 | 71.5",
        "LiveCodeBench 50.0 | 57.5 | 63.5 | 64.6 | 65.9",
        "IFEval 46.6 | 71.7 | 72.0 | 78.1 | 83.3",
        "MMLU 88.8 | 89.1 | 91.2 | 91.0 | 90.8",
        "MMLU-Redux 85.6 | 90.0 | 93.0 | 93.1 | 92.9",
        "MMLU-Pro 68.9 | 74.1 | 83.8 | 83.1 | 84.0",
        "CLUEWSC 93.1 | 92.8 | 92.6 | 91.6 | 92.8",
        "C-Eval 92.8 | 85.7 | 91.9 | 86.4 | 91.8",
        "AlpacaEval 2.0 24.7 | 50.1 | 55.8 | 62.1 | 87.6",
        "ArenaHard 53.6 | 77.0 | 73.2 | 75.6 | 92.3",
    ):
        assert row in said
