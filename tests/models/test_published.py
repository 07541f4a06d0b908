"""Named configurations: field for field those of the published files, and their counts those of the publishers."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from r1jax import cli
from r1jax.checkpoint import config_from_hf, config_to_hf
from r1jax.data.chat import ChatTemplate
from r1jax.models import RopeScaling, YarnScaling, count_params
from r1jax.models.published import PUBLISHED, R1_CHAT_TEMPLATE, count

DATA = Path(__file__).parents[1] / "data" / "deepseek"
SHARED = Path(os.environ.get("R1JAX_DATA", Path(__file__).parents[3] / "shared" / "data"))
STUDENTS = [name for name in PUBLISHED if "distill" in name]


@pytest.mark.parametrize("name", ["deepseek-r1", "deepseek-r1-zero", "deepseek-v3"])
def test_r1_is_its_published_file(name):
    assert PUBLISHED[name].config == config_from_hf(json.loads((DATA / "r1_config.json").read_text()))


# DeepSeek's own inference configurations name things differently; what they leave out is their code's default.
@pytest.mark.parametrize(
    ("name", "file"),
    [("deepseek-v2-lite", "16B"), ("deepseek-v2", "236B"), ("deepseek-v3", "671B"), ("deepseek-v3", "v3.1")],
)
def test_deepseeks_inference_configurations_agree(name, file):
    given = json.loads((DATA / f"deepseek_config_{file}.json").read_text())
    config = PUBLISHED[name].config
    assert {
        "vocab_size": config.vocab_size,
        "dim": config.hidden_size,
        "inter_dim": config.intermediate_size,
        "moe_inter_dim": config.experts.moe_intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_dense_layers": config.experts.first_k_dense_replace,
        "n_heads": config.num_attention_heads,
        "n_routed_experts": config.experts.n_routed_experts,
        "n_shared_experts": config.experts.n_shared_experts,
        "n_activated_experts": config.experts.num_experts_per_tok,
        "n_expert_groups": config.experts.n_group,
        "n_limited_groups": config.experts.topk_group,
        "route_scale": config.experts.routed_scaling_factor,
        "score_func": config.experts.scoring_func,
        "q_lora_rank": config.latent.q_lora_rank or 0,
        "kv_lora_rank": config.latent.kv_lora_rank,
        "qk_nope_head_dim": config.latent.qk_nope_head_dim,
        "qk_rope_head_dim": config.latent.qk_rope_head_dim,
        "v_head_dim": config.latent.v_head_dim,
    } == {
        "n_expert_groups": 1,
        "n_limited_groups": 1,
        "score_func": "softmax",
        **{key: value for key, value in given.items() if key not in ("dtype", "scale_fmt", "mscale")},
    }


# hidden, layers, heads, kv heads, ffn, vocabulary, theta, eps, positions, tied: r1_spec.md section 5.3.
DENSE = {
    "deepseek-r1-distill-qwen-1.5b": (1536, 28, 12, 2, 8960, 151936, 1e4, 1e-6, 131072, False),
    "deepseek-r1-distill-qwen-7b": (3584, 28, 28, 4, 18944, 152064, 1e4, 1e-6, 131072, False),
    "deepseek-r1-distill-qwen-14b": (5120, 48, 40, 8, 13824, 152064, 1e6, 1e-5, 131072, False),
    "deepseek-r1-distill-qwen-32b": (5120, 64, 40, 8, 27648, 152064, 1e6, 1e-5, 131072, False),
    "deepseek-r1-distill-llama-8b": (4096, 32, 32, 8, 14336, 128256, 5e5, 1e-5, 131072, False),
    "deepseek-r1-distill-llama-70b": (8192, 80, 64, 8, 28672, 128256, 5e5, 1e-5, 131072, False),
    "qwen2.5-math-1.5b": (1536, 28, 12, 2, 8960, 151936, 1e4, 1e-6, 4096, True),
    "qwen2.5-math-7b": (3584, 28, 28, 4, 18944, 152064, 1e4, 1e-6, 4096, False),
    "qwen2.5-14b": (5120, 48, 40, 8, 13824, 152064, 1e6, 1e-5, 131072, False),
    "qwen2.5-32b": (5120, 64, 40, 8, 27648, 152064, 1e6, 1e-5, 131072, False),
    "llama-3.1-8b": (4096, 32, 32, 8, 14336, 128256, 5e5, 1e-5, 131072, False),
    "llama-3.3-70b-instruct": (8192, 80, 64, 8, 28672, 128256, 5e5, 1e-5, 131072, False),
}


@pytest.mark.parametrize("name", DENSE)
def test_students_and_their_bases(name):
    c = PUBLISHED[name].config
    sizes = (
        c.hidden_size,
        c.num_hidden_layers,
        c.num_attention_heads,
        c.num_key_value_heads,
        c.intermediate_size,
        c.vocab_size,
    )
    rest = (c.rope_theta, c.rms_norm_eps, c.max_position_embeddings, c.tie_word_embeddings)
    assert (*sizes, *rest) == DENSE[name] and c.head_dim == 128
    llama = "llama" in name
    assert c.rope_scaling == (RopeScaling(8.0, 1.0, 4.0, 8192) if llama else None)
    assert (c.architecture, c.qkv_bias, c.o_bias, c.mlp_bias) == (("llama", False) if llama else ("qwen2", True)) + (
        False,
        False,
    )
    assert c.bos_token_id == (128000 if llama else 151643) and c.eos_token_ids[0] == (128001 if llama else 151643)


def test_each_student_has_the_shape_of_its_base_and_r1s_chat():
    assert len(STUDENTS) == 6
    for name in STUDENTS:
        student, base = PUBLISHED[name], PUBLISHED[PUBLISHED[name].base]
        ours = {"max_position_embeddings": 0, "tie_word_embeddings": False, "eos_token_ids": ()}
        assert dataclasses.replace(student.config, **ours) == dataclasses.replace(base.config, **ours)
        assert student.chat_template == R1_CHAT_TEMPLATE and not base.chat_template
        assert student.tokens["<think>"] == (128013 if "llama" in name else 151648)


def test_the_family():
    lite, moonlight, k2 = (PUBLISHED[name].config for name in ("deepseek-v2-lite", "moonlight-16b-a3b", "kimi-k2"))
    assert lite.rope_scaling == YarnScaling(40.0, 4096, 32.0, 1.0, 0.707, 0.707)
    assert not lite.experts.selection_bias and not lite.experts.norm_topk_prob and lite.experts.group_score == "max"
    assert (moonlight.rope_theta, moonlight.rope_scaling, moonlight.rms_norm_eps) == (50_000.0, None, 1e-5)
    assert (moonlight.latent.q_lora_rank, moonlight.experts.routed_scaling_factor) == (None, 2.446)
    assert moonlight.experts.selection_bias and moonlight.max_position_embeddings == 8192
    assert k2.rope_scaling == YarnScaling(32.0, 4096, 1.0, 1.0, 1.0, 1.0) and k2.rope_theta == 50_000.0
    assert (k2.experts.n_routed_experts, k2.num_attention_heads, k2.experts.first_k_dense_replace) == (384, 64, 1)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("deepseek-r1", 671, 37),
        ("deepseek-v3", 671, 37),
        ("deepseek-v2", 236, 21),
        ("deepseek-v2-lite", 16, 2),
        ("moonlight-16b-a3b", 16, 3),
        ("kimi-k2", 1026, 32),
        ("deepseek-r1-distill-llama-70b", 71, 71),
        ("qwen2.5-32b", 33, 33),
    ],
)
def test_counts_round_to_the_published_ones(name, total, active):
    counts = count(PUBLISHED[name].config)
    assert (round(counts.total / 1e9), round(counts.active / 1e9)) == (total, active)


def test_counts():
    r1, lite = PUBLISHED["deepseek-r1"].config, PUBLISHED["deepseek-v2-lite"].config
    counts = count(r1)
    assert counts.total + counts.mtp == count_params(r1) and round(counts.mtp / 1e8) == 116
    assert counts.embedding == 129280 * 7168
    assert round((counts.active + counts.embedding) / 1e7) == 3755  # with the embedding, as r1_spec.md counts
    assert round(count(lite).active / 1e8) == 25 and round((count(lite).active + count(lite).embedding) / 1e7) == 266
    for name, billions in (("qwen2.5-math-1.5b", 1.544), ("deepseek-r1-distill-qwen-1.5b", 1.777)):
        counts = count(PUBLISHED[name].config)
        assert round(counts.total / 1e9, 3) == billions and counts.active == counts.total


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_configuration_goes_to_hugging_face_and_back(name):
    config = PUBLISHED[name].config
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config)))) == config


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>\neasy\n</think>\n\n2"},
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "2+2?"},
]


def test_the_chat_template():
    template = ChatTemplate({"default": R1_CHAT_TEMPLATE}, {"bos_token": "<｜begin▁of▁sentence｜>"})
    assert template.render(CHAT, add_generation_prompt=True) == (
        "<｜begin▁of▁sentence｜>Be brief.\n\nBe kind.<｜User｜>1+1?<｜Assistant｜>\n\n2<｜end▁of▁sentence｜>"
        "<｜User｜>2+2?<｜Assistant｜><think>\n"
    )
    assert template.render([{"role": "user", "content": "</think>"}]) == "<｜begin▁of▁sentence｜><｜User｜></think>"


def test_the_chat_template_says_what_the_published_one_says():
    file = SHARED / "tokenizers" / "deepseek_r1.tokenizer_config.json"
    if not file.exists():
        pytest.skip(f"{file} is not there: set R1JAX_DATA to the folder of the real inputs")
    variables = {"bos_token": "<｜begin▁of▁sentence｜>"}
    published = ChatTemplate({"default": json.loads(file.read_text())["chat_template"]}, variables)
    ours = ChatTemplate({"default": R1_CHAT_TEMPLATE}, variables)
    for messages in (CHAT, CHAT[1:2], CHAT[:3]):
        assert ours.render(messages) == published.render(messages)
        # The first release's prompt ends before the thought, the later one opens it.
        prompts = [template.render(messages, add_generation_prompt=True) for template in (ours, published)]
        assert prompts[0].removesuffix("<think>\n") == prompts[1].removesuffix("<think>\n")


def test_the_command(capfd):
    assert cli.main(["models", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    models = {model["name"]: model for model in document["models"]}
    assert set(models) == set(PUBLISHED) and "deepseek_v3" in document["architectures"]
    assert round(models["deepseek-r1"]["parameters"] / 1e9) == 671
    assert models["deepseek-r1-distill-qwen-7b"]["base"] == "qwen2.5-math-7b"
    assert cli.main(["models"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert any(line.startswith("deepseek-r1 ") and "671B" in line and "36.6B" in line for line in lines)


@pytest.mark.parametrize("name, folder", [("tiny-qwen2", "base"), ("tiny-deepseek-v3", "deepseek_base")])
def test_the_tiny_ones_are_those_of_the_tiny_recipes(name, folder):
    shipped = json.loads((Path(__file__).parents[2] / "configs/tiny" / folder / "config.json").read_text())
    assert PUBLISHED[name].config == config_from_hf(shipped)
