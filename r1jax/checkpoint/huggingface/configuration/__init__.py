"""Hugging Face's config.json and generation_config.json, both ways, in the spelling of transformers 4 and of 5.

What a configuration asks for and r1jax does not have is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.checkpoint.huggingface.configuration.deepseek import deepseek_from_hf, deepseek_to_hf
from r1jax.checkpoint.huggingface.configuration.dense import dense_from_hf, dense_to_hf
from r1jax.checkpoint.huggingface.configuration.heads import class_of, labels_to_hf, read_class
from r1jax.checkpoint.huggingface.configuration.keys import flag, ids, number, only, refuse, single_id
from r1jax.checkpoint.huggingface.configuration.quantisation import quantisation_from_hf, quantisation_to_hf
from r1jax.checkpoint.huggingface.configuration.rope import rope_to_hf
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models.config import DEEPSEEK, ModelConfig

__all__ = ["config_from_hf", "config_to_hf", "generation_config_to_hf", "quantisation_from_hf", "quantisation_to_hf"]

_DTYPES = ("float32", "bfloat16", "float16")

# Keys of other architectures that change what a model computes, with the values at which they change nothing.
_NEUTRAL = {
    "pretraining_tp": (None, 1),
    "partial_rotary_factor": (None, 1),
    "attention_multiplier": (None,),
    "query_pre_attn_scalar": (None,),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "use_mrope": (None, False),
    "use_qk_norm": (None, False),
}


def config_from_hf(config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None) -> ModelConfig:
    """Reads a model's configuration.

    Args:
      config: what config.json holds.
      generation_config: what generation_config.json holds; its end-of-sequence ids join the configuration's.

    Raises:
      CheckpointError: a key is missing or malformed, or asks for what is not implemented; names key, value and remedy.
    """
    architecture, num_labels = read_class(config)
    only(config, _NEUTRAL)
    quantisation_from_hf(config)
    if (config.get("hidden_act") or "silu") != "silu":
        refuse("hidden_act", config["hidden_act"], "known: silu")
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    if dtype not in _DTYPES:
        refuse("dtype", dtype, f"known: {', '.join(_DTYPES)}")
    eos = (
        *ids("config.json", "eos_token_id", config.get("eos_token_id")),
        *ids("generation_config.json", "eos_token_id", (generation_config or {}).get("eos_token_id")),
    )
    family = deepseek_from_hf if architecture in DEEPSEEK else dense_from_hf
    try:
        fields = family(config, architecture)
        if num_labels:
            fields |= {"num_nextn_predict_layers": 0}  # transformers keeps the key and has no such layers
        return ModelConfig(
            architecture=architecture,
            **{key: number(config, key, int) for key in sizes},
            **fields,
            num_labels=num_labels,
            rms_norm_eps=number(config, "rms_norm_eps", float, 1e-6),
            tie_word_embeddings=flag(config, "tie_word_embeddings"),
            initializer_range=number(config, "initializer_range", float, 0.02),
            bos_token_id=single_id(config, "bos_token_id"),
            pad_token_id=single_id(config, "pad_token_id"),
            eos_token_ids=tuple(dict.fromkeys(eos)),
            dtype=dtype,
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"config.json: {error}") from error


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """What to write as config.json: transformers 5's spelling, and beside it transformers 4's where 5 reads both alike.

    Raises:
      CheckpointError: what the architecture's Hugging Face class does not have.
    """
    family = deepseek_to_hf if config.architecture in DEEPSEEK else dense_to_hf
    more = family(config)
    eos = list(config.eos_token_ids)
    return {
        "architectures": [class_of(config)],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        **rope_to_hf(config.rope_theta, config.rope_scaling),
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": config.initializer_range,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        "pad_token_id": config.pad_token_id,
        "dtype": config.dtype,
        "torch_dtype": config.dtype,
        "use_cache": True,
        "attention_dropout": 0.0,
        **labels_to_hf(config),
        **more,
    }


def generation_config_to_hf(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """What to write as generation_config.json: the special ids, and what the model's own file says besides.

    Args:
      given: that file, which may be empty. Its ids stand, since R1's students' begin sequences otherwise than their config.json
        says; its ends of sequence are among the configuration's.
    """
    eos = list(config.eos_token_ids)
    named = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos,
        "pad_token_id": config.pad_token_id,
    }
    named = {key: value for key, value in named.items() if value not in (None, [])}
    given = {key: value for key, value in given.items() if not key.startswith("_")}  # marks of transformers' own
    return named | given | {key: value for key, value in named.items() if key == "eos_token_id"}
