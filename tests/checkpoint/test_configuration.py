"""Both spellings are read, what isn't implemented is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from r1jax.checkpoint import CheckpointError, config_from_hf, config_to_hf
from r1jax.checkpoint.huggingface.configuration import generation_config_to_hf, quantisation_from_hf
from r1jax.models import Experts, LatentAttention, RopeScaling, YarnScaling

# What Qwen2.5-Math-1.5B says of itself, in transformers 4's spelling (sliding window named and switched off).
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 4096,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
DATA = Path(__file__).parents[1] / "data" / "deepseek"
R1 = json.loads((DATA / "r1_config.json").read_text())
YARN = R1["rope_scaling"]
V2 = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "torch_dtype": "bfloat16",
}
OLD_ROPE = {"rope_theta": 500000.0, "rope_scaling": {**LLAMA3, "rope_type": "llama3"}, "torch_dtype": "bfloat16"}
NEW_ROPE = {"rope_parameters": {**LLAMA3, "rope_type": "llama3", "rope_theta": 500000.0}, "dtype": "bfloat16"}


def test_qwen2_in_the_old_spelling():
    config = config_from_hf(QWEN)
    assert (config.architecture, config.head_dim, config.tie_word_embeddings) == ("qwen2", 128, True)
    assert (config.qkv_bias, config.o_bias, config.mlp_bias) == (True, False, False)
    assert (config.rope_theta, config.rope_scaling, config.dtype) == (10_000.0, None, "bfloat16")


@pytest.mark.parametrize("rope", [OLD_ROPE, NEW_ROPE, {**OLD_ROPE, **NEW_ROPE}], ids=["old", "new", "both"])
def test_llama3_scaling_in_each_spelling(rope):
    config = config_from_hf({**LLAMA, **rope})
    assert config.rope_theta == 500_000.0
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    assert config.dtype == "bfloat16"


def test_the_older_key_of_the_rope_type():
    rope = {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "type": "llama3"}}
    assert config_from_hf({**LLAMA, **rope}).rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    assert config_from_hf({**LLAMA, "rope_scaling": {"type": "default"}}).rope_scaling is None


def test_head_dim_explicit_and_null():
    assert config_from_hf({**LLAMA, "head_dim": 64}).head_dim == 64
    assert config_from_hf({**LLAMA, "head_dim": None}).head_dim == 128
    with pytest.raises(CheckpointError, match="hidden_size 4096.*num_attention_heads 31.*head_dim"):
        config_from_hf({**LLAMA, "num_attention_heads": 31, "num_key_value_heads": 31})


def test_llama_biases():
    config = config_from_hf({**LLAMA, "attention_bias": True, "mlp_bias": True})
    assert (config.qkv_bias, config.o_bias, config.mlp_bias) == (True, True, True)


@pytest.mark.parametrize(
    ("eos", "generation", "ids"),
    [
        (2, None, (2,)),
        ([2, 7], None, (2, 7)),
        (None, None, ()),
        (2, {"eos_token_id": [7, 2]}, (2, 7)),
        (None, {"eos_token_id": 7}, (7,)),
        (2, {}, (2,)),
    ],
)
def test_ends_of_sequence_are_a_union(eos, generation, ids):
    assert config_from_hf({**LLAMA, "eos_token_id": eos}, generation).eos_token_ids == ids


# Each line: what is changed, and words that the one-line error must hold.
REFUSED = [
    (QWEN, {"use_sliding_window": True, "sliding_window": 1024}, ["sliding_window", "1024", "use_sliding_window to false"]),
    (QWEN, {"layer_types": ["full_attention"] * 27 + ["sliding_attention"]}, ["layer_types", "sliding_attention"]),
    (LLAMA, {"sliding_window": 1024}, ["sliding_window", "1024"]),
    (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_scaling.rope_type", "linear", "llama3"]),
    (LLAMA, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, ["rope_scaling.rope_type", "dynamic"]),
    (QWEN, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, ["rope_scaling.rope_type", "yarn"]),
    (LLAMA, {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, ["rope_parameters.rope_type", "longrope"]),
    (QWEN, {"rope_scaling": {"type": "default", "mrope_section": [2, 3, 3]}}, ["rope_scaling.mrope_section"]),
    (
        LLAMA,
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        ["rope_parameters", "full_attention", "one set"],
    ),
    (LLAMA, {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, ["rope_theta", "10000.0", "1000000.0"]),
    (LLAMA, {**NEW_ROPE, "rope_scaling": {"rope_type": "default"}}, ["rope_parameters", "rope_scaling", "contradict"]),
    (LLAMA, {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "0.5"]),
    (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["lacks low_freq_factor"]),
    (LLAMA, {"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
    (LLAMA, {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}, ["MistralForCausalLM", "Qwen2ForCausalLM"]),
    (LLAMA, {"architectures": None, "model_type": "gemma"}, ["model_type", "gemma", "qwen2, llama"]),
    (LLAMA, {"architectures": ["Qwen2ForCausalLM"]}, ["llama", "Qwen2ForCausalLM", "contradict"]),
    (LLAMA, {"architectures": None, "model_type": None}, ["lacks model_type"]),
    (LLAMA, {"quantization_config": {"quant_method": "fp8"}}, ["quantization_config", "fp8"]),
    (LLAMA, {"pretraining_tp": 2}, ["pretraining_tp", "2"]),
    (LLAMA, {"attention_multiplier": 0.5}, ["attention_multiplier", "0.5"]),
    (LLAMA, {"final_logit_softcapping": 30.0}, ["final_logit_softcapping", "30.0"]),
    (LLAMA, {"torch_dtype": "float64"}, ["dtype", "float64", "bfloat16"]),
    (LLAMA, {"vocab_size": None}, ["lacks vocab_size"]),
    (LLAMA, {"hidden_size": "4096"}, ["hidden_size", "'4096'"]),
    (LLAMA, {"hidden_size": 4096.5}, ["hidden_size", "4096.5"]),
    (LLAMA, {"num_hidden_layers": 0}, ["num_hidden_layers", "0"]),
    (LLAMA, {"num_key_value_heads": 5}, ["num_key_value_heads 5"]),
    (LLAMA, {"eos_token_id": "</s>"}, ["eos_token_id", "</s>"]),
    (LLAMA, {"tie_word_embeddings": "yes"}, ["tie_word_embeddings", "yes"]),
    (LLAMA, {"quantization_config": {"quant_method": "awq", "bits": 4}}, ["quantization_config.quant_method", "awq", "fp8"]),
    (R1, {"attention_bias": True}, ["attention_bias", "True"]),
    (R1, {"moe_layer_freq": 2}, ["moe_layer_freq", "2"]),
    (R1, {"ep_size": 8}, ["ep_size", "8"]),
    (R1, {"hidden_act": "gelu"}, ["hidden_act", "gelu"]),
    (R1, {"topk_method": "greedy"}, ["topk_method", "greedy", "noaux_tc"]),
    (R1, {"topk_method": "best_guess"}, ["topk_method", "best_guess"]),
    (R1, {"scoring_func": "softmax"}, ["scoring_func", "softmax"]),
    (R1, {"num_key_value_heads": 8}, ["num_key_value_heads", "8", "128"]),
    (R1, {"rope_interleave": False}, ["rope_interleave"]),
    (R1, {"n_group": None}, ["lacks n_group"]),
    (R1, {"n_group": 7}, ["n_routed_experts 256", "n_group 7"]),
    (R1, {"num_nextn_predict_layers": -1}, ["num_nextn_predict_layers", "-1"]),
    (R1, {"kv_lora_rank": None}, ["lacks kv_lora_rank"]),
    (R1, {"qk_rope_head_dim": 63}, ["qk_rope_head_dim 63"]),
    (R1, {"rope_scaling": {**YARN, "type": "llama3"}}, ["rope_type", "llama3", "yarn"]),
    (R1, {"rope_scaling": {**YARN, "attention_factor": 1.2}}, ["attention_factor", "1.2"]),
    (R1, {"rope_scaling": {**YARN, "truncate": False}}, ["truncate"]),
    (R1, {"rope_scaling": {**YARN, "mscale": None}}, ["lacks mscale"]),
    (R1, {"rope_scaling": {**YARN, "mscale_all_dim": -1}}, ["mscale_all_dim", "-1"]),
    (R1, {"quantization_config": {**R1["quantization_config"], "fmt": "e5m2"}}, ["quantization_config.fmt", "e5m2"]),
    (R1, {"quantization_config": {**R1["quantization_config"], "activation_scheme": "static"}}, ["static"]),
    (R1, {"quantization_config": {**R1["quantization_config"], "weight_block_size": [128]}}, ["quantization_config"]),
    (R1, {"model_type": "deepseek_v32", "architectures": None}, ["model_type", "deepseek_v32"]),
    (R1, {"model_type": "deepseek_v2"}, ["contradict"]),
    (V2, {"topk_method": "noaux_tc"}, ["topk_method", "noaux_tc"]),
    (V2, {"norm_topk_prob": True}, ["norm_topk_prob", "True"]),
    (V2, {"scoring_func": "sigmoid"}, ["scoring_func", "sigmoid"]),
    (V2, {"mlp_bias": True}, ["mlp_bias"]),
]


@pytest.mark.parametrize(
    ("base", "changes", "words"), REFUSED, ids=lambda x: json.dumps(x)[:40] if isinstance(x, dict) else ""
)
def test_what_is_not_implemented_is_refused(base, changes, words):
    config_from_hf(base)
    with pytest.raises(CheckpointError) as caught:
        config_from_hf({**base, **changes})
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "changes",
    [
        {"use_sliding_window": True, "sliding_window": 4096},  # as long as the longest sequence
        {"use_sliding_window": True, "sliding_window": None},
        {"use_sliding_window": True, "sliding_window": 1024, "max_window_layers": 28},  # no layer above the 28th
        {"layer_types": ["full_attention"] * 28, "use_sliding_window": False},
        {"rope_scaling": None, "quantization_config": None},
        {"torch_dtype": None, "dtype": "bfloat16"},
    ],
)
def test_what_changes_nothing_is_accepted(changes):
    assert config_from_hf({**QWEN, **changes}) == config_from_hf(QWEN)


@pytest.mark.parametrize(
    "given",
    [
        QWEN,
        R1,
        V2,
        {**R1, "model_type": "kimi_k2"},
        {**LLAMA, **NEW_ROPE, "attention_bias": True, "head_dim": 64, "eos_token_id": [1, 2]},
    ],
)
def test_written_configurations_read_back_in_either_spelling(given):
    config = config_from_hf(given)
    written = config_to_hf(config)
    assert config_from_hf(json.loads(json.dumps(written))) == config
    old = {key: value for key, value in written.items() if key not in ("rope_parameters", "dtype")}
    new = {key: value for key, value in written.items() if key not in ("rope_theta", "rope_scaling", "torch_dtype")}
    assert config_from_hf(old) == config_from_hf(new) == config


@pytest.mark.parametrize("value", [-0.1, "0.1", True, float("inf")])
def test_a_coefficient_that_is_none(value):
    with pytest.raises(CheckpointError, match="aux_loss_alpha must be a number of at least 0"):
        config_from_hf({**R1, "aux_loss_alpha": value})


def test_how_a_publisher_samples_is_handed_on():
    """R1's students begin sequences with another id than their config.json says, and name temperature and top-p."""
    config = config_from_hf({**QWEN, "bos_token_id": 151643, "eos_token_id": 151643}, {"eos_token_id": [151645, 151643]})
    given = {"_from_model_config": True, "bos_token_id": 151646, "eos_token_id": 151645, "temperature": 0.6, "top_p": 0.95}
    written = generation_config_to_hf(config, given)
    assert written == {"bos_token_id": 151646, "eos_token_id": [151643, 151645], "temperature": 0.6, "top_p": 0.95}
    assert generation_config_to_hf(config, {}) == {"bos_token_id": 151643, "eos_token_id": [151643, 151645]}


def test_biases_that_hugging_face_has_no_word_for(helpers):
    with pytest.raises(CheckpointError, match="architecture llama"):
        config_to_hf(helpers.tiny(architecture="qwen2"))
    with pytest.raises(CheckpointError, match="attention_bias"):
        config_to_hf(helpers.tiny(o_bias=False))


def test_r1s_own_file():
    config = config_from_hf(R1)
    assert config.latent == LatentAttention(512, 128, 64, 128, 1536) and config.head_dim == 192
    assert config.experts == Experts(256, 8, 2048, 1, 3, "sigmoid", 8, 4, "top2", True, True, 2.5, 0.001, True)
    assert config.rope_scaling == YarnScaling(40.0, 4096, 32.0, 1.0, 1.0, 1.0) and config.rope_theta == 10_000.0
    assert (config.num_nextn_predict_layers, config.dtype, config.eos_token_ids) == (1, "bfloat16", (1,))
    assert quantisation_from_hf(R1) == (128, 128) and quantisation_from_hf(V2) is None
    # V3.1 writes which numbers its scales are
    assert quantisation_from_hf({"quantization_config": {**R1["quantization_config"], "scale_fmt": "ue8m0"}}) == (128, 128)


def test_what_r1s_own_file_says_survives_the_way_there_and_back():
    written = config_to_hf(config_from_hf(R1))
    # The code that auto_map names does not come along; an export says itself how it is quantised.
    told_elsewhere = {"auto_map", "quantization_config", "transformers_version"}
    for key in R1.keys() - told_elsewhere - {"rope_scaling"}:
        assert written[key] == R1[key], key
    assert {key: written["rope_scaling"][key] for key in R1["rope_scaling"]} == R1["rope_scaling"]


def test_v2s_gates():
    greedy = config_from_hf(V2)
    assert greedy.experts == Experts(64, 6, 1408, 2, 1, "softmax", 1, 1, "max", False, False, 1.0)
    assert greedy.latent.q_lora_rank is None and greedy.rope_scaling is None and greedy.num_nextn_predict_layers == 0
    limited = config_from_hf({**V2, "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3})
    assert (limited.experts.n_group, limited.experts.topk_group, limited.experts.group_score) == (8, 3, "max")
    # transformers and DeepSeek's code pass over groups where the choice is greedy
    assert config_from_hf({**V2, "n_group": 8, "topk_group": 3}) == greedy
    assert config_to_hf(greedy)["topk_method"] == "greedy" and config_to_hf(limited)["topk_method"] == "group_limited_greedy"


def test_both_spellings_of_yarn():
    old = config_from_hf(R1)
    rope = {key: value for key, value in YARN.items() if key != "type"} | {"rope_type": "yarn", "rope_theta": 10000}
    new = {key: value for key, value in R1.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")}
    assert config_from_hf({**new, "rope_parameters": rope, "dtype": "bfloat16"}) == old


def test_gates_that_hugging_face_has_no_word_for():
    config = config_from_hf(R1)
    for changes in ({"scoring_func": "softmax"}, {"selection_bias": False}, {"group_score": "max"}):
        other = dataclasses.replace(config, experts=dataclasses.replace(config.experts, **changes))
        with pytest.raises(CheckpointError, match=f"deepseek_v3 has {next(iter(changes))}"):
            config_to_hf(other)
    with pytest.raises(CheckpointError, match="deepseek_v2 has no multi-token prediction"):
        config_to_hf(dataclasses.replace(config_from_hf(V2), num_nextn_predict_layers=1))
