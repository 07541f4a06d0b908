"""Keys of Qwen2 and Llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.checkpoint.huggingface.configuration.keys import flag, number, refuse
from r1jax.checkpoint.huggingface.configuration.rope import rope_from_hf
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models.config import ModelConfig

_MAX_POSITIONS = {"qwen2": 32_768, "llama": 2_048}  # transformers' defaults, for files that leave the key out


def dense_from_hf(config: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that the family's keys give."""
    hidden_size, layers, heads = (
        number(config, k, int) for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    if config.get("head_dim") is None and hidden_size % heads:
        raise CheckpointError(
            f"config.json: hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}, and head_dim is not given"
        )
    max_positions = number(config, "max_position_embeddings", int, _MAX_POSITIONS[architecture])
    _refuse_sliding_window(config, architecture, layers, max_positions)
    theta, scaling = rope_from_hf(config, max_positions, ("default", "llama3"))
    biased = flag(config, "attention_bias")  # Llama's key; Qwen2 always has biases of q, k and v, and no others
    return {
        "num_key_value_heads": number(config, "num_key_value_heads", int, heads),
        "head_dim": number(config, "head_dim", int, hidden_size // heads),
        "max_position_embeddings": max_positions,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "qkv_bias": architecture == "qwen2" or biased,
        "o_bias": architecture == "llama" and biased,
        "mlp_bias": architecture == "llama" and flag(config, "mlp_bias"),
    }


def _refuse_sliding_window(config: Mapping[str, Any], architecture: str, layers: int, max_positions: int) -> None:
    """Qwen2's files name a window that is switched off; only one that would hide something is refused."""
    remedy = "only full attention is: set use_sliding_window to false where the model never needed it"
    types = config.get("layer_types") or ()
    for kind in types:
        if kind != "full_attention":
            refuse("layer_types", kind, remedy)
    window = config.get("sliding_window", 4096 if architecture == "qwen2" else None)  # transformers' defaults
    switched_on = flag(config, "use_sliding_window") if architecture == "qwen2" else window is not None
    first = config.get("max_window_layers", 28) if architecture == "qwen2" else 0  # lower layers see everything
    if switched_on and not types and window is not None and window < max_positions and first < layers:
        refuse("sliding_window", window, remedy)


def dense_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The family's keys.

    Raises:
      CheckpointError: biases that the architecture's Hugging Face class does not have.
    """
    biases = (config.qkv_bias, config.o_bias, config.mlp_bias)
    if config.architecture == "qwen2" and biases != (True, False, False):
        raise CheckpointError(
            f"Qwen2ForCausalLM has biases of q, k and v and no others, not {biases}; use architecture llama"
        )
    if config.architecture == "llama" and config.qkv_bias != config.o_bias:
        raise CheckpointError("LlamaForCausalLM has one attention_bias: qkv_bias and o_bias must be equal")
    if config.architecture == "llama":
        more = {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias, "pretraining_tp": 1}
    else:
        more = {"use_sliding_window": False, "sliding_window": None}
    return {"head_dim": config.head_dim, **more}
