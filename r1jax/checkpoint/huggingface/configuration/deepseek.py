"""Keys of DeepSeek-V2, V3 (R1, Moonlight) and Kimi K2: latent attention, experts, multi-token prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.checkpoint.huggingface.configuration.keys import coefficient, count, flag, number, only
from r1jax.checkpoint.huggingface.configuration.rope import rope_from_hf
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models.config import Experts, LatentAttention, ModelConfig

_MAX_POSITIONS = {"deepseek_v2": 2_048, "deepseek_v3": 4_096, "kimi_k2": 4_096}

# Keys that change what is computed, with the values at which they change nothing.
_NEUTRAL = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "moe_layer_freq": (None, 1),
    "ep_size": (None, 1),
    "rope_interleave": (None, True),
}
# The gates that DeepSeek's code and transformers' have, of each generation, as their keys name them ("gready" is how V2's own
# code spells its default) and as ours do. V2 with
# norm_topk_prob would be two models: DeepSeek's code then divides by the sum, transformers never does.
_V2_KEYS = {
    "scoring_func": (None, "softmax"),
    "topk_method": (None, "gready", "group_limited_greedy", "greedy"),
    "norm_topk_prob": (None, False),
}
_V3_KEYS = {"scoring_func": (None, "sigmoid"), "topk_method": (None, "noaux_tc")}
_V2_GATE = {"scoring_func": "softmax", "group_score": "max", "selection_bias": False, "norm_topk_prob": False}
_V3_GATE = {"scoring_func": "sigmoid", "group_score": "top2", "selection_bias": True}


def deepseek_from_hf(config: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that the family's keys give."""
    only(config, _NEUTRAL)
    heads = number(config, "num_attention_heads", int)
    only(config, {"num_key_value_heads": (None, heads)})
    max_positions = number(config, "max_position_embeddings", int, _MAX_POSITIONS[architecture])
    theta, scaling = rope_from_hf(config, max_positions, ("default", "yarn"))
    sizes = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    latent = LatentAttention(
        **{key: number(config, key, int) for key in sizes},
        q_lora_rank=None if config.get("q_lora_rank") is None else number(config, "q_lora_rank", int),
    )
    return {
        "num_key_value_heads": heads,
        "head_dim": latent.qk_nope_head_dim + latent.qk_rope_head_dim,
        "max_position_embeddings": max_positions,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "latent": latent,
        "experts": _experts_from_hf(config, architecture),
        "num_nextn_predict_layers": count(config, "num_nextn_predict_layers", 0),
    }


def _experts_from_hf(config: Mapping[str, Any], architecture: str) -> Experts:
    generation = _V2_KEYS if architecture == "deepseek_v2" else _V3_KEYS
    only(config, generation)
    if architecture == "deepseek_v2":
        gate = _V2_GATE
        grouped = config.get("topk_method") == "group_limited_greedy"
        scale = number(config, "routed_scaling_factor", float, 1.0)
    else:
        gate = {**_V3_GATE, "norm_topk_prob": config.get("norm_topk_prob") is None or flag(config, "norm_topk_prob")}
        grouped = True
        scale = number(config, "routed_scaling_factor", float)
    sizes = ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
    return Experts(
        **{key: number(config, key, int) for key in sizes},
        n_shared_experts=0 if config.get("n_shared_experts", 1) is None else count(config, "n_shared_experts"),
        first_k_dense_replace=count(config, "first_k_dense_replace"),
        n_group=number(config, "n_group", int) if grouped else 1,
        topk_group=number(config, "topk_group", int) if grouped else 1,
        routed_scaling_factor=scale,
        aux_loss_alpha=coefficient(config, "aux_loss_alpha"),
        seq_aux=None if config.get("seq_aux") is None else flag(config, "seq_aux"),
        **gate,
    )


def deepseek_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The family's keys.

    Raises:
      CheckpointError: a gate that the architecture's Hugging Face class does not have.
    """
    latent, experts = config.latent, config.experts
    second = config.architecture == "deepseek_v2"
    if experts is None:
        raise CheckpointError("a DeepSeek model without experts has no Hugging Face class")
    for name, value in (_V2_GATE if second else _V3_GATE).items():
        if getattr(experts, name) != value:
            known = f"architecture {config.architecture} has {name} {value!r} and no other"
            raise CheckpointError(f"{known}, not {getattr(experts, name)!r}; it can't be exported to Hugging Face's layout")
    if second and config.num_nextn_predict_layers:
        raise CheckpointError("architecture deepseek_v2 has no multi-token prediction; it can't be exported with it")
    method = ("group_limited_greedy" if experts.n_group > 1 else "greedy") if second else "noaux_tc"
    return {
        "q_lora_rank": latent.q_lora_rank,
        "kv_lora_rank": latent.kv_lora_rank,
        "qk_nope_head_dim": latent.qk_nope_head_dim,
        "qk_rope_head_dim": latent.qk_rope_head_dim,
        "v_head_dim": latent.v_head_dim,
        "n_routed_experts": experts.n_routed_experts,
        "n_shared_experts": experts.n_shared_experts,
        "num_experts_per_tok": experts.num_experts_per_tok,
        "moe_intermediate_size": experts.moe_intermediate_size,
        "moe_layer_freq": 1,
        "first_k_dense_replace": experts.first_k_dense_replace,
        "n_group": experts.n_group,
        "topk_group": experts.topk_group,
        "topk_method": method,
        "scoring_func": experts.scoring_func,
        "norm_topk_prob": experts.norm_topk_prob,
        "routed_scaling_factor": experts.routed_scaling_factor,
        **{key: value for key in ("aux_loss_alpha", "seq_aux") if (value := getattr(experts, key)) is not None},
        **({} if second else {"num_nextn_predict_layers": config.num_nextn_predict_layers}),
        "ep_size": 1,
        "attention_bias": False,
        "pretraining_tp": 1,
    }
