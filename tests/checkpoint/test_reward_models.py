"""Reward models on disk: Hugging Face's ``*ForSequenceClassification`` both ways, r1jax's own format, what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from r1jax.checkpoint import CheckpointError, config_from_hf, convert, export_model, load_model
from r1jax.models import ModelConfig, forward, token_scores

DENSE = {"vocab_size": 67, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
LATENT = {
    **{"num_key_value_heads": 4, "kv_lora_rank": 10, "q_lora_rank": 9, "qk_nope_head_dim": 8, "qk_rope_head_dim": 6},
    **{"v_head_dim": 7, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "n_shared_experts": 1},
    **{"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5},
}
FAMILIES = {"Qwen2": {"num_key_value_heads": 2}, "Llama": {"num_key_value_heads": 2}, "DeepseekV3": LATENT}


def scores(config: ModelConfig, params, tokens: np.ndarray) -> np.ndarray:
    """Of the last token of each row."""
    with jax.default_matmul_precision("highest"):
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
        hidden, _, _ = jax.jit(forward, static_argnums=0)(config, params, tokens, positions)
        return np.asarray(token_scores(config, params, hidden))[:, -1]


@pytest.mark.parametrize(
    "family", ["Qwen2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Llama", "DeepseekV3"))]
)
def test_scores_and_files_both_ways(tmp_path, family):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tied = family == "Qwen2"  # a key that says nothing of a model without a vocabulary's head
    given = {**DENSE, **FAMILIES[family], "num_labels": 1, "initializer_range": 0.3, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    kind = getattr(transformers, f"{family}ForSequenceClassification")
    theirs = kind(getattr(transformers, f"{family}Config")(**given, pad_token_id=0)).eval()
    tokens = np.random.default_rng(0).integers(1, 67, (3, 30)).astype(np.int32)

    def reference(model) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor(tokens.astype(np.int64))).logits.numpy()[:, 0]

    expected = reference(theirs)
    assert np.ptp(expected) > 0.05
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    assert (
        loaded.config.num_labels == 1 and "head" not in loaded.params and loaded.params["score"]["kernel"].shape == (24, 1)
    )
    # float32 through two layers of width 24
    np.testing.assert_allclose(scores(loaded.config, loaded.params, tokens), expected, atol=2e-5 * np.abs(expected).max())

    export_model(tmp_path / "ours", loaded.config, loaded.params)
    again, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", dtype="float32", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert type(again) is kind and again.config.num_labels == 1
    # The same numbers in other places of memory, which torch's kernels divide otherwise.
    np.testing.assert_allclose(reference(again.eval()), expected, rtol=1e-5)
    convert(tmp_path / "ours", tmp_path / "native")
    for folder in ("ours", "native"):
        reloaded = load_model(tmp_path / folder)
        assert reloaded.config == loaded.config
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), reloaded.params, loaded.params)


def written(**changes) -> dict:
    return {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama", **DENSE, **changes}


@pytest.mark.parametrize(
    "said, message",
    [
        ({}, "num_labels is 2, which is what"),
        ({"id2label": {"0": "a", "1": "b"}}, "is 2; a reward"),
        ({"num_labels": 3}, "is 3"),
    ],
)
def test_a_classifier_of_several_labels_is_no_reward_model(said, message):
    with pytest.raises(CheckpointError, match=message):
        config_from_hf(written(**said))


def test_the_number_of_labels_may_be_written_either_way():
    for said in ({"num_labels": 1}, {"id2label": {"0": "LABEL_0"}}):
        assert config_from_hf(written(**said)).num_labels == 1
    of_tokens = {**written(), "architectures": ["LlamaForCausalLM"], "id2label": {"0": "a", "1": "b"}}
    assert config_from_hf(of_tokens).num_labels == 0


def test_a_head_that_is_missing_is_named(directory, model, tmp_path):
    document = json.loads((directory / "config.json").read_text())
    scored = document | {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    (directory / "config.json").write_text(json.dumps(scored))
    with pytest.raises(CheckpointError, match="lacks tensor score.weight, .*; it holds lm_head.weight instead"):
        load_model(directory)
    config, params = model
    with pytest.raises(CheckpointError, match=r"parameter score.kernel is missing; the configuration asks for \[16, 1\]"):
        export_model(tmp_path / "scored", dataclasses.replace(config, num_labels=1), params)
