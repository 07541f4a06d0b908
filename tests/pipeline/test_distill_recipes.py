"""The six students' recipes: the paper's numbers, and the cost that their head comments name."""

import re
from pathlib import Path

import pytest

from r1jax import config
from r1jax.models.published import PUBLISHED, count
from r1jax.pipeline.sft.stage import check_settings

FOLDER = Path(__file__).parents[2] / "configs" / "distill"
# The paper's table of initial learning rates (arXiv 2501.12948), and the first report's Table 5: AIME 2024 pass@1.
STUDENTS = {
    "qwen_1_5b": ("qwen2.5-math-1.5b", "deepseek-r1-distill-qwen-1.5b", 1e-4, 28.9),
    "qwen_7b": ("qwen2.5-math-7b", "deepseek-r1-distill-qwen-7b", 8e-5, 55.5),
    "qwen_14b": ("qwen2.5-14b", "deepseek-r1-distill-qwen-14b", 7e-5, 69.7),
    "qwen_32b": ("qwen2.5-32b", "deepseek-r1-distill-qwen-32b", 6e-5, 72.6),
    "llama_8b": ("llama-3.1-8b", "deepseek-r1-distill-llama-8b", 5e-5, 50.4),
    "llama_70b": ("llama-3.3-70b-instruct", "deepseek-r1-distill-llama-70b", 2e-5, 70.0),
}


def test_there_are_six():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == STUDENTS.keys()


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_s_recipe(name):
    base, student, lr, aime = STUDENTS[name]
    recipe = config.load_recipe(str(FOLDER / f"{name}.yaml"))
    (stage,) = recipe.stages
    settings = stage.settings
    check_settings(stage.name, settings)
    assert stage.kind == "sft" and settings.optimizer.lr == lr and settings.optimizer.schedule == "cosine"
    assert settings.optimizer.final_lr_ratio == 0.1 and settings.optimizer.warmup_steps == 0
    assert (settings.batch_sequences, settings.max_tokens, settings.epochs, settings.steps) == (64, 32_768, 2, 0)
    assert settings.aggregation == "token_mean"
    assert recipe.models["base"].path == PUBLISHED[base].source.partition("/")[2] and PUBLISHED[student].base == base
    # What is trained must divide over the mesh, and a micro-batch over its rows.
    mesh, model = recipe.mesh, PUBLISHED[base].config
    assert settings.rows_per_microbatch % (mesh.data * mesh.fsdp) == 0
    for size in (model.num_key_value_heads, model.num_attention_heads, model.intermediate_size, model.vocab_size):
        assert size % mesh.tensor == 0
    assert model.hidden_size % mesh.fsdp == 0
    assert {b.samples for b in recipe.benchmarks.values()} == {64, 16}
    assert all((b.temperature, b.top_p, b.max_tokens) == (0.6, 0.95, 32_768) for b in recipe.benchmarks.values())

    head = " ".join(line.lstrip("# ") for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#"))
    assert f"r1jax run configs/distill/{name}.yaml" in head and PUBLISHED[student].source in head
    assert ("max_position_embeddings: 131072" in head) == (model.max_position_embeddings < 32_768)
    said, hours = re.search(r"= (\S+) FLOPs, (\S+) hours of an H200", head).groups()
    flops = 6 * count(model).total * 2 * 804_745 * 5_355.3
    assert float(said) == pytest.approx(flops, rel=0.01)
    assert float(hours.replace(",", "")) == pytest.approx(flops / (0.4 * 989e12) / 3600, rel=0.02)
    assert f"AIME 2024 pass@1 {aime}" in head
