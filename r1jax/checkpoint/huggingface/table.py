"""Hugging Face's tensors and r1jax's parameters: one table for all families, read in both directions.

A line names a parameter, its axes, the tensors that make it up, and a tensor's axes. Axis letters stand for sizes, which come
from the parameter's declaration in ``models``; ``(N H)`` is one stored dimension that holds two; a letter in braces counts the
tensors that are stacked along that axis. Transposes, reshapes, stacking, slices of them and their inverses all follow from the
letters (``binding.py``). ``{L}`` counts from the first layer of the parameter's stack (``first_layer``).
"""

from __future__ import annotations

from typing import NamedTuple

from r1jax.models.config import DEEPSEEK, DENSE, ModelConfig

# How a tensor is stored: as the file's dtype says; quantised where the file is in FP8; in float32 whatever the file's dtype.
PLAIN, MATRIX, EXACT = "plain", "matrix", "exact"


class Entry(NamedTuple):
    """``path`` of a parameter, its ``axes``; ``name`` of its tensors, the axes as ``stored`` in each, and in which ``form``."""

    path: str
    axes: str
    name: str
    stored: str
    form: str = PLAIN


class Copy(NamedTuple):
    """Tensors ``name`` that repeat those of parameter ``path``; compared when read, written again when exported."""

    name: str
    path: str


_LAYER = "model.layers.{L}"


def _norms(at: str) -> tuple[Entry, ...]:
    return (
        Entry(f"{at}.input_norm.scale", "L D", f"{_LAYER}.input_layernorm.weight", "D"),
        Entry(f"{at}.post_attention_norm.scale", "L D", f"{_LAYER}.post_attention_layernorm.weight", "D"),
    )


def _grouped_query_attention(at: str) -> tuple[Entry, ...]:
    name = f"{_LAYER}.self_attn"
    return (
        Entry(f"{at}.attention.q.kernel", "L D N H", f"{name}.q_proj.weight", "(N H) D", MATRIX),
        Entry(f"{at}.attention.q.bias", "L N H", f"{name}.q_proj.bias", "(N H)"),
        Entry(f"{at}.attention.k.kernel", "L D K H", f"{name}.k_proj.weight", "(K H) D", MATRIX),
        Entry(f"{at}.attention.k.bias", "L K H", f"{name}.k_proj.bias", "(K H)"),
        Entry(f"{at}.attention.v.kernel", "L D K H", f"{name}.v_proj.weight", "(K H) D", MATRIX),
        Entry(f"{at}.attention.v.bias", "L K H", f"{name}.v_proj.bias", "(K H)"),
        Entry(f"{at}.attention.o.kernel", "L N H D", f"{name}.o_proj.weight", "D (N H)", MATRIX),
        Entry(f"{at}.attention.o.bias", "L D", f"{name}.o_proj.bias", "D"),
    )


def _latent_attention(at: str) -> tuple[Entry, ...]:
    """Rows of ``q_b_proj`` and ``q_proj`` are a head's ``[nope | rope]``, of ``kv_b_proj`` its ``[nope | value]``, of
    ``kv_a_proj_with_mqa`` ``[latent | rope]``: the parameters keep these orders."""
    name = f"{_LAYER}.self_attn"
    return (
        Entry(f"{at}.attention.q.kernel", "L D N H", f"{name}.q_proj.weight", "(N H) D", MATRIX),
        Entry(f"{at}.attention.q.down.kernel", "L D Q", f"{name}.q_a_proj.weight", "Q D", MATRIX),
        Entry(f"{at}.attention.q.norm.scale", "L Q", f"{name}.q_a_layernorm.weight", "Q"),
        Entry(f"{at}.attention.q.up.kernel", "L Q N H", f"{name}.q_b_proj.weight", "(N H) Q", MATRIX),
        Entry(f"{at}.attention.kv_down.kernel", "L D C", f"{name}.kv_a_proj_with_mqa.weight", "C D", MATRIX),
        Entry(f"{at}.attention.kv_norm.scale", "L C", f"{name}.kv_a_layernorm.weight", "C"),
        Entry(f"{at}.attention.kv_up.kernel", "L C N W", f"{name}.kv_b_proj.weight", "(N W) C", MATRIX),
        Entry(f"{at}.attention.o.kernel", "L N W D", f"{name}.o_proj.weight", "D (N W)", MATRIX),
    )


def _mlp(at: str, name: str) -> tuple[Entry, ...]:
    name = f"{_LAYER}.{name}"
    return (
        Entry(f"{at}.gate.kernel", "L D F", f"{name}.gate_proj.weight", "F D", MATRIX),
        Entry(f"{at}.gate.bias", "L F", f"{name}.gate_proj.bias", "F"),
        Entry(f"{at}.up.kernel", "L D F", f"{name}.up_proj.weight", "F D", MATRIX),
        Entry(f"{at}.up.bias", "L F", f"{name}.up_proj.bias", "F"),
        Entry(f"{at}.down.kernel", "L F D", f"{name}.down_proj.weight", "D F", MATRIX),
        Entry(f"{at}.down.bias", "L D", f"{name}.down_proj.bias", "D"),
    )


def _mixture(at: str) -> tuple[Entry, ...]:
    name = f"{_LAYER}.mlp"
    return (
        Entry(f"{at}.router.kernel", "L D E", f"{name}.gate.weight", "E D"),
        Entry(f"{at}.router.bias", "L E", f"{name}.gate.e_score_correction_bias", "E", EXACT),
        Entry(f"{at}.gate", "L E D F", f"{name}.experts.{{E}}.gate_proj.weight", "F D", MATRIX),
        Entry(f"{at}.up", "L E D F", f"{name}.experts.{{E}}.up_proj.weight", "F D", MATRIX),
        Entry(f"{at}.down", "L E F D", f"{name}.experts.{{E}}.down_proj.weight", "D F", MATRIX),
        *_mlp(f"{at}.shared", "mlp.shared_experts"),
    )


_ENDS = (
    Entry("embed.embedding", "V D", "model.embed_tokens.weight", "V D"),
    Entry("final_norm.scale", "D", "model.norm.weight", "D"),
    Entry("head.kernel", "D V", "lm_head.weight", "V D"),
    Entry("score.kernel", "D O", "score.weight", "O D"),
)

# Multi-token prediction: the layers after the last. The embedding comes first in what ``eh_proj`` multiplies.
_PREDICTION = (
    Entry("mtp.embed_norm.scale", "L D", f"{_LAYER}.enorm.weight", "D"),
    Entry("mtp.hidden_norm.scale", "L D", f"{_LAYER}.hnorm.weight", "D"),
    Entry("mtp.projection.kernel", "L J D", f"{_LAYER}.eh_proj.weight", "D J"),
    Entry("mtp.final_norm.scale", "L D", f"{_LAYER}.shared_head.norm.weight", "D"),
)

_DENSE = (*_ENDS, *_norms("layers"), *_grouped_query_attention("layers"), *_mlp("layers.mlp", "mlp"))
_LATENT = tuple(
    entry
    for at in ("dense_layers", "expert_layers", "mtp.block")
    for entry in (*_norms(at), *_latent_attention(at), *_mlp(f"{at}.mlp", "mlp"), *_mixture(f"{at}.moe"))
)
_DEEPSEEK = (*_ENDS, *_LATENT, *_PREDICTION)

_TABLES = {**dict.fromkeys(DENSE, _DENSE), **dict.fromkeys(DEEPSEEK, _DEEPSEEK)}


def entries(config: ModelConfig) -> dict[str, Entry]:
    """The table of a family, by the parameters' paths; a model has some of them."""
    return {entry.path: entry for entry in _TABLES[config.architecture]}


def copies(config: ModelConfig) -> tuple[Copy, ...]:
    """What the layers of multi-token prediction repeat; ``{L}`` counts them."""
    if not config.num_nextn_predict_layers:
        return ()
    head = "embed.embedding" if config.tie_word_embeddings else "head.kernel"
    return (Copy(f"{_LAYER}.embed_tokens.weight", "embed.embedding"), Copy(f"{_LAYER}.shared_head.head.weight", head))


def first_layer(config: ModelConfig, path: str) -> int:
    """The number that Hugging Face's names give to the first layer of a parameter's stack."""
    stack = path.partition(".")[0]
    if stack == "expert_layers":
        return config.experts.first_k_dense_replace
    return config.num_hidden_layers if stack == "mtp" else 0
