"""Against transformers: the same logits from the same files, in both directions, and configurations as it writes them.

Importing torch and transformers takes seconds, so everything that needs them is here.
"""

import json

import jax
import numpy as np
import pytest

from r1jax.checkpoint import config_to_hf, export_model, load_model
from r1jax.models import ModelConfig, RopeScaling, forward, head_weight

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


def random_config(seed: int) -> dict:
    """A tiny configuration of either class, in transformers 4's spelling; every feature comes up among a few seeds."""
    rng = np.random.default_rng(seed)
    heads = int(rng.choice([2, 4, 6]))
    width = 2 * int(rng.integers(2, 5))
    config = {
        "vocab_size": int(rng.integers(50, 200)),
        "hidden_size": heads * width,
        "intermediate_size": int(rng.integers(10, 60)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": int(rng.choice([k for k in (1, 2, 3, 4, 6) if heads % k == 0])),
        "head_dim": [None, 2 * int(rng.integers(2, 9))][seed // 2 % 2],
        "rms_norm_eps": float(rng.choice([1e-5, 1e-6])),
        "rope_theta": float(rng.choice([1e2, 1e4, 5e5])),
        "rope_scaling": [None, {**LLAMA3, "rope_type": "llama3"}][seed % 3 == 1],
        "tie_word_embeddings": bool(seed % 3 == 0),
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": [2, [2, 3]][seed // 2 % 2],
    }
    if seed % 2:
        return {**config, "model_type": "llama", "attention_bias": seed // 2 % 2 == 0, "mlp_bias": seed // 4 % 2 == 0}
    return {**config, "model_type": "qwen2", "use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}


def reference_model(config: dict, seed: int):
    """A transformers model with random weights, biases and norms."""
    kind = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM)}.get(
        config["model_type"], (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
    )
    torch.manual_seed(seed)
    # Keys that a class does not declare (Qwen2's head_dim) are None only by being absent, as in files.
    model = kind[1](kind[0](**{key: value for key, value in config.items() if key != "model_type" and value is not None}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def reference_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens.astype(np.int64))).logits.numpy()


def logits(config: ModelConfig, params, tokens: np.ndarray) -> np.ndarray:
    """``[B, T, V]`` of rows without padding, in float32."""
    with jax.default_matmul_precision("highest"):
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
        hidden, _, _ = jax.jit(forward, static_argnums=0)(config, params, tokens, positions)
        return np.asarray(hidden @ head_weight(config, params))


def in_new_spelling(config: dict) -> dict:
    config = dict(config)
    theta, scaling = config.pop("rope_theta"), config.pop("rope_scaling")
    return {**config, "rope_parameters": {"rope_theta": theta, **(scaling or {"rope_type": "default"})}, "dtype": "float32"}


def check_both_ways(tmp_path, seed: int) -> None:
    given = random_config(seed)
    reference = reference_model(given, seed)
    tokens = np.random.default_rng(seed).integers(0, given["vocab_size"], (2, 40)).astype(np.int32)
    expected = reference_logits(reference, tokens)
    reference.save_pretrained(tmp_path / "theirs", max_shard_size=["5GB", "20KB"][seed % 2])

    loaded = load_model(tmp_path / "theirs")
    found = logits(loaded.config, loaded.params, tokens)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() <= 1e-4 * scale, (given, np.abs(found - expected).max(), scale)

    # Hand-written files in either spelling mean the same as what transformers wrote.
    saved = (tmp_path / "theirs" / "config.json").read_text()
    for document in ({**given, "torch_dtype": "float32"}, in_new_spelling(given)):
        (tmp_path / "theirs" / "config.json").write_text(json.dumps(document))
        assert load_model(tmp_path / "theirs").config == loaded.config, document
    (tmp_path / "theirs" / "config.json").write_text(saved)

    export_model(tmp_path / "ours", loaded.config, loaded.params, max_shard_bytes=[10**9, 20_000][seed // 2 % 2])
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype="float32", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert type(again) is type(reference)
    assert np.abs(reference_logits(again.eval(), tokens) - expected).max() <= 1e-5 * scale
    assert again.generation_config.eos_token_id == given["eos_token_id"]
    reloaded = load_model(tmp_path / "ours")
    assert reloaded.config == loaded.config
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), reloaded.params, loaded.params)


@pytest.mark.parametrize("seed", range(4))
def test_logits_and_files_both_ways(tmp_path, seed):
    check_both_ways(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 40))
def test_logits_and_files_both_ways_on_more_configurations(tmp_path, seed):
    check_both_ways(tmp_path, seed)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_transformers_understands_the_configuration_in_each_spelling(tmp_path, architecture):
    config = ModelConfig(
        architecture=architecture,
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        rms_norm_eps=1e-5,
        rope_theta=5e5,
        rope_scaling=RopeScaling(**LLAMA3),
        qkv_bias=True,
        o_bias=architecture == "llama",
        eos_token_ids=(3, 5),
    )
    written = config_to_hf(config)
    assert written["rope_theta"] == 5e5 and written["rope_scaling"]["rope_type"] == "llama3"  # what transformers 4 reads
    (tmp_path / "config.json").write_text(json.dumps(written))
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    assert read.rope_parameters == {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}
    assert (read.head_dim, read.num_key_value_heads, read.rms_norm_eps, read.eos_token_id) == (6, 2, 1e-5, [3, 5])
    assert read.dtype in ("bfloat16", torch.bfloat16) and not getattr(read, "sliding_window", None)


def test_what_transformers_would_read_as_a_window_is_refused(tmp_path):
    given = {**random_config(0), "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    reference_model(given, 0).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="sliding"):
        load_model(tmp_path)
