"""Hugging Face's config.json and generation_config.json, both ways, in the spelling of transformers 4 and of 5.

What a configuration asks for and r1jax does not have is refused, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models.config import ModelConfig, RopeScaling

_ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
_MAX_POSITIONS = {"qwen2": 32_768, "llama": 2_048}  # transformers' defaults, for files that leave the key out
_DTYPES = ("float32", "bfloat16", "float16")
_LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

# Keys of other architectures that change what a model computes, with the values at which they change nothing.
_NEUTRAL = {
    "quantization_config": (None,),
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


def _refuse(key: str, value: Any, remedy: str) -> NoReturn:
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    raise CheckpointError(f"config.json: {key} {shown} is not implemented; {remedy}")


def _architecture(config: Mapping[str, Any]) -> str:
    known = f"known: {', '.join(_ARCHITECTURES.values())}"
    model_type, classes = config.get("model_type"), config.get("architectures")
    if model_type is None and not classes:
        raise CheckpointError(f"config.json lacks model_type and architectures; {known}")
    for name in classes or ():
        if name not in _ARCHITECTURES.values():
            _refuse("architectures", name, known)
    if model_type is None:
        model_type = next(key for key, name in _ARCHITECTURES.items() if name == classes[0])
    if model_type not in _ARCHITECTURES:
        _refuse("model_type", model_type, f"known: {', '.join(_ARCHITECTURES)}")
    if classes and classes[0] != _ARCHITECTURES[model_type]:
        raise CheckpointError(
            f"config.json: model_type {model_type!r} and architectures {classes[0]!r} contradict each other"
        )
    return model_type


def _number(config: Mapping[str, Any], key: str, kind: type, default: Any = None, where: str = "config.json") -> Any:
    """A positive number under ``key``; ``default`` where it is absent or null, and if that is None too, an error."""
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise CheckpointError(f"{where} lacks {key}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or kind(value) != value:
        raise CheckpointError(f"{where}: {key} must be a positive {'integer' if kind is int else 'number'}, not {value!r}")
    return kind(value)


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value not in (None, True, False):
        raise CheckpointError(f"config.json: {key} must be true or false, not {value!r}")
    return bool(value)


def _rope(config: Mapping[str, Any], max_positions: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary frequencies, from ``rope_theta`` and ``rope_scaling`` or from ``rope_parameters``."""
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    for key, rope in (("rope_parameters", new), ("rope_scaling", old)):
        if rope is not None and not isinstance(rope, Mapping):
            raise CheckpointError(f"config.json: {key} must be a mapping or null, not {rope!r}")
    if new and any(isinstance(value, Mapping) for value in new.values()):
        _refuse("rope_parameters", dict(new), "only one set of rotary parameters for all layers is")
    thetas = [rope["rope_theta"] for rope in (new, old, config) if rope and rope.get("rope_theta") is not None]
    if any(theta != thetas[0] for theta in thetas):
        raise CheckpointError(f"config.json: rope_theta is given as {thetas[0]!r} and as {thetas[-1]!r}; keep the right one")
    theta = _number({"rope_theta": thetas[0] if thetas else None}, "rope_theta", float, 10_000.0)
    scalings = [
        _rope_scaling(config, key, rope, max_positions)
        for key, rope in (("rope_parameters", new), ("rope_scaling", old))
        if rope
    ]
    if any(scaling != scalings[0] for scaling in scalings):
        raise CheckpointError("config.json: rope_parameters and rope_scaling contradict each other; remove the wrong one")
    return theta, scalings[0] if scalings else None


def _rope_scaling(config: Mapping[str, Any], key: str, rope: Mapping[str, Any], max_positions: int) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3"):
        _refuse(f"{key}.rope_type", kind, "known: default, llama3")
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *(_LLAMA3_KEYS if kind == "llama3" else ())}
    for name, value in rope.items():
        if name not in known and value is not None:
            _refuse(f"{key}.{name}", value, f"keys of rope type {kind}: {', '.join(sorted(known))}")
    if rope.get("partial_rotary_factor") not in (None, 1):
        _refuse(f"{key}.partial_rotary_factor", rope["partial_rotary_factor"], "only rotation of whole heads (1.0) is")
    if kind == "default":
        return None
    where = f"config.json: {key}"
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    return RopeScaling(
        **{name: _number(rope, name, float, where=where) for name in _LLAMA3_KEYS[:3]},
        original_max_position_embeddings=_number({_LLAMA3_KEYS[3]: original}, _LLAMA3_KEYS[3], int, max_positions, where),
    )


def _refuse_sliding_window(config: Mapping[str, Any], architecture: str, layers: int, max_positions: int) -> None:
    """Qwen2's files name a window that is switched off; only one that would hide something is refused."""
    remedy = "only full attention is: set use_sliding_window to false where the model never needed it"
    types = config.get("layer_types") or ()
    for kind in types:
        if kind != "full_attention":
            _refuse("layer_types", kind, remedy)
    window = config.get("sliding_window", 4096 if architecture == "qwen2" else None)  # transformers' defaults
    switched_on = _flag(config, "use_sliding_window") if architecture == "qwen2" else window is not None
    first = config.get("max_window_layers", 28) if architecture == "qwen2" else 0  # lower layers see everything
    if switched_on and not types and window is not None and window < max_positions and first < layers:
        _refuse("sliding_window", window, remedy)


def _ids(where: str, key: str, value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise CheckpointError(f"{where}: {key} must be token ids, not {value!r}")
    return tuple(values)


def _single_id(config: Mapping[str, Any], key: str) -> int | None:
    ids = _ids("config.json", key, config.get(key))
    return ids[0] if ids else None


def config_from_hf(config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None) -> ModelConfig:
    """Reads a model's configuration.

    Args:
      config: what config.json holds.
      generation_config: what generation_config.json holds; its end-of-sequence ids join the configuration's.

    Raises:
      CheckpointError: a key is missing or malformed, or asks for what is not implemented; names key, value and remedy.
    """
    architecture = _architecture(config)
    for key, neutral in _NEUTRAL.items():
        if config.get(key) not in neutral:
            _refuse(key, config[key], f"only {json.dumps(neutral[-1])} is")
    if (config.get("hidden_act") or "silu") != "silu":
        _refuse("hidden_act", config["hidden_act"], "known: silu")
    vocab_size, hidden_size, intermediate_size, layers, heads = (
        _number(config, key, int)
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    )
    if config.get("head_dim") is None and hidden_size % heads:
        raise CheckpointError(
            f"config.json: hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}, and head_dim is not given"
        )
    max_positions = _number(config, "max_position_embeddings", int, _MAX_POSITIONS[architecture])
    _refuse_sliding_window(config, architecture, layers, max_positions)
    theta, scaling = _rope(config, max_positions)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    if dtype not in _DTYPES:
        _refuse("dtype", dtype, f"known: {', '.join(_DTYPES)}")
    biased = _flag(config, "attention_bias")  # Llama's key; Qwen2 always has biases of q, k and v, and no others
    eos = (
        *_ids("config.json", "eos_token_id", config.get("eos_token_id")),
        *_ids("generation_config.json", "eos_token_id", (generation_config or {}).get("eos_token_id")),
    )
    try:
        return ModelConfig(
            architecture=architecture,
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=_number(config, "num_key_value_heads", int, heads),
            head_dim=_number(config, "head_dim", int, hidden_size // heads),
            rms_norm_eps=_number(config, "rms_norm_eps", float, 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            tie_word_embeddings=_flag(config, "tie_word_embeddings"),
            qkv_bias=architecture == "qwen2" or biased,
            o_bias=architecture == "llama" and biased,
            mlp_bias=architecture == "llama" and _flag(config, "mlp_bias"),
            max_position_embeddings=max_positions,
            initializer_range=_number(config, "initializer_range", float, 0.02),
            bos_token_id=_single_id(config, "bos_token_id"),
            pad_token_id=_single_id(config, "pad_token_id"),
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
      CheckpointError: biases that the architecture's Hugging Face class does not have.
    """
    biases = (config.qkv_bias, config.o_bias, config.mlp_bias)
    if config.architecture == "qwen2" and biases != (True, False, False):
        raise CheckpointError(
            f"Qwen2ForCausalLM has biases of q, k and v and no others, not {biases}; use architecture llama"
        )
    if config.architecture == "llama" and config.qkv_bias != config.o_bias:
        raise CheckpointError("LlamaForCausalLM has one attention_bias: qkv_bias and o_bias must be equal")
    scaling = config.rope_scaling
    scaling = None if scaling is None else {"rope_type": "llama3", **{key: getattr(scaling, key) for key in _LLAMA3_KEYS}}
    eos = list(config.eos_token_ids)
    written = {
        "architectures": [_ARCHITECTURES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, **(scaling or {"rope_type": "default"})},
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
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
    }
    if config.architecture == "llama":
        written |= {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias, "pretraining_tp": 1}
    else:
        written |= {"use_sliding_window": False, "sliding_window": None}
    return written


def generation_config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """What to write as generation_config.json: the special ids; how to sample is the user's affair."""
    eos = list(config.eos_token_ids)
    ids = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos,
        "pad_token_id": config.pad_token_id,
    }
    return {key: value for key, value in ids.items() if value not in (None, [])}
