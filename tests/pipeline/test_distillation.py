"""On-policy distillation: its gradient, a teacher that is the student, a student that comes nearer, what is refused."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from r1jax import checkpoint, config, sharding
from r1jax.data import Tokenizer, empty_batch
from r1jax.losses import PolicyLoss
from r1jax.models import ModelConfig, abstract_params
from r1jax.pipeline.distillation.learning import distillation_token_loss
from r1jax.pipeline.distillation.stage import OnPolicyDistillationStage, as_grpo, check_same_vocabulary, check_teacher
from r1jax.pipeline.grpo.objective import policy_loss
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting import Console

TOKENIZERS = Path(__file__).parents[1] / "data" / "tokenizers"
SHAPE = {"num_attention_heads": 4, "head_dim": 8, "max_position_embeddings": 64}
STUDENT = ModelConfig("qwen2", 705, 32, 48, 2, num_key_value_heads=2, qkv_bias=True, **SHAPE)
TEACHER = ModelConfig("llama", 720, 48, 64, 1, num_key_value_heads=4, **SHAPE)
SMALL = {
    "steps": 6,
    "prompts_per_rollout": 8,
    "samples_per_prompt": 2,
    "max_tokens": 8,
    "max_prompt_tokens": 16,
    "row_tokens": 64,
    "rows_per_microbatch": 2,
    "checkpoint_every": 2,
    "optimizer": {"lr": 3e-3},
    "sampler": {"rows": 8, "lanes": 2, "chunk": 8, "prompt_bucket": 16, "completion_bucket": 8},
    "workers": {"count": 1},
}


def settings(**changed):
    return config.read_dataclass(config.OnPolicyDistillationSettings, {**SMALL, **changed}, "stage")


def params_of(model, seed, peak):
    """Random parameters; ``peak`` times as large a head, so that some tokens are far likelier than others."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.1 + (x.shape[-1:] == x.shape)).astype(np.float32), abstract_params(model)
    )
    params["head"] = jax.tree.map(lambda x: x * peak, params["head"])
    return params


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """``student``; ``near``, the same with another head; ``teacher``, of another family and size. One tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    student, rng = params_of(STUDENT, 0, 8), np.random.default_rng(5)
    head = jax.tree.map(lambda x: (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32), student["head"])
    for name, model, params in (
        ("student", STUDENT, student),
        ("near", STUDENT, student | {"head": head}),
        ("teacher", TEACHER, params_of(TEACHER, 1, 4)),
    ):
        checkpoint.export_model(folder / name, model, params, TOKENIZERS / "bpe", np.float32)
    rows = [{"problem": f"{i} apples", "template": "{prompt}\n"} for i in range(12)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_stage(models, folder, teacher="teacher", stop=lambda: False, **changed):
    workdir = epath.Path(folder) / "stages" / "near"
    workdir.mkdir(parents=True, exist_ok=True)
    layout = sharding.layout(sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]), sharding.TRAIN_RULES)
    recipe = SimpleNamespace(seed=0, benchmarks={})
    context = Context(recipe, layout, stop, Console(open(os.devnull, "w")))
    data = config.DataSource(str(models / "prompts.jsonl"), grader="none")
    inputs = {"model": str(models / "student"), "teacher": str(models / teacher), "data": data}
    made = OnPolicyDistillationStage("near", settings(**changed)).run(inputs, workdir, context)
    return made, updates(folder)


def updates(folder):
    folders = sorted((Path(folder) / "stages/near/updates").glob("*"))
    return [json.loads((f / "metrics.json").read_text()) for f in folders]


def test_the_gradient_is_the_policy_gradient_of_the_reverse_kl():
    """With respect to a token's log-probability: minus its weight times ``log p_teacher - log p_student``, held fixed."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(-3, 1, (2, 3, 7)).astype(np.float32)
    weight = (rng.uniform(0, 1, (3, 7)) * (rng.random((3, 7)) < 0.6)).astype(np.float32)
    batch = empty_batch(3, 7)._replace(ref_logprobs=teacher, token_weight=weight, sampler_logprobs=student)
    loss = distillation_token_loss(policy_loss(as_grpo(settings()).loss))
    gradient, metrics = jax.grad(lambda x: loss(x, jnp.zeros((3, 7)), batch), has_aux=True)(student)
    np.testing.assert_allclose(gradient, -weight * (teacher - student), rtol=1e-5, atol=1e-7)
    expected = np.sum(weight * (student - teacher), dtype=np.float64) / np.sum(weight, dtype=np.float64)
    assert metrics["reverse_kl"] == pytest.approx(expected, rel=1e-5)
    assert metrics["ratio_max"] == 1 and isinstance(policy_loss(as_grpo(settings()).loss), PolicyLoss)


@pytest.mark.slow
def test_a_student_is_nothing_away_from_itself(models, tmp_path):
    _, (first,) = run_stage(models, tmp_path, teacher="student", steps=1)
    assert first["reverse_kl"] == 0 and first["grad_norm"] == 0 and first["tokens"] > 16


@pytest.mark.slow
def test_the_student_comes_nearer_and_a_stopped_one_to_the_same_place(models, tmp_path):
    told = {"teacher": "near", "steps": 16, "samples_per_prompt": 8}
    whole, metrics = run_stage(models, tmp_path / "whole", **told)
    far = [m["reverse_kl"] for m in metrics]
    assert whole.steps == 16 and far[0] > 0.7 and max(far[-3:]) < 0.5 * far[0]
    assert "reward_mean" not in metrics[0] and metrics[0]["sampler_trainer_mean"] < 1e-5
    timings = [json.loads(f.read_text()) for f in sorted((tmp_path / "whole/timing/near").glob("*.json"))]
    assert [t["compiles"] for t in timings] == [0] * 16
    with pytest.raises(StopRequested):
        run_stage(models, tmp_path / "parts", stop=lambda: len(updates(tmp_path / "parts")) == 5, **told)
    assert (tmp_path / "parts/stages/near/checkpoints/000005/commit.json").exists()
    parts, again = run_stage(models, tmp_path / "parts", **told)
    assert again == metrics
    assert Path(parts.model, "model.safetensors").read_bytes() == Path(whole.model, "model.safetensors").read_bytes()


@pytest.mark.slow
def test_one_sample_of_a_prompt_will_do(models, tmp_path):
    _, metrics = run_stage(models, tmp_path, steps=1, samples_per_prompt=1)
    assert metrics[0]["reverse_kl"] > 0
    with pytest.raises(config.RecipeError, match="samples_per_prompt must be at least 1, not 0"):
        OnPolicyDistillationStage("near", settings(samples_per_prompt=0))
    with pytest.raises(config.RecipeError, match="temperature must be positive"):
        OnPolicyDistillationStage("near", settings(temperature=0))


# ---------------------------------------------------------------------------------------------- refusals
def test_another_tokenizer_is_refused(models, tmp_path):
    other = tmp_path / "other"
    checkpoint.export_model(other, TEACHER, params_of(TEACHER, 1, 1), TOKENIZERS / "sentencepiece", np.float32)
    with pytest.raises(ValueError, match=r"different tokenizers: id 0 is '<unk>' in .*other and .*kind: sft"):
        check_teacher(str(models / "student"), str(other))
    # One added token more is enough.
    more = tmp_path / "more"
    shutil.copytree(TOKENIZERS / "bpe", more)
    document = json.loads((more / "tokenizer.json").read_text())
    document["added_tokens"].append({**document["added_tokens"][-1], "id": 705, "content": "<|more|>"})
    (more / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="id 705 is '<|more|>' in .* and None in"):
        check_same_vocabulary(Tokenizer.load(TOKENIZERS / "bpe"), Tokenizer.load(more))
    check_same_vocabulary(Tokenizer.load(TOKENIZERS / "bpe"), Tokenizer.load(TOKENIZERS / "bpe"))


def test_a_teacher_with_a_smaller_head_or_no_tokenizer_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match="the student's head has 720 rows, the teacher's 705"):
        check_teacher(str(models / "teacher"), str(models / "student"))
    bare = tmp_path / "bare"
    checkpoint.export_model(bare, TEACHER, params_of(TEACHER, 1, 1), None, np.float32)
    with pytest.raises(ValueError, match="bare has no tokenizer"):
        check_teacher(str(models / "student"), str(bare))


def test_a_recipe_without_a_teacher_is_refused():
    stage = {"name": "near", "kind": "on_policy_distillation", "model": "base", "data": "prompts"}
    document = {"name": "x", "models": {"base": {"path": "b"}}, "data": {"prompts": {"path": "p"}}, "stages": [stage]}
    with pytest.raises(config.RecipeError, match="stages.near needs teacher: the name of one, or stage:NAME"):
        config.read_recipe(document)
    stage["teacher"] = "base"
    assert config.read_recipe(document).stages[0].inputs["teacher"] == "base"
