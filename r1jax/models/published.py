"""The published architectures by name, and what they count.

Numbers are those of the models' own config.json files and of DeepSeek's inference configurations; where a public copy was the
only source, the entry says so. Tokenizers come with checkpoints; their special tokens are named here for whoever makes one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from r1jax.models import abstract_params, logical_axes
from r1jax.models.config import Experts, LatentAttention, ModelConfig, RopeScaling, YarnScaling

# DeepSeek-R1's chat: no line breaks between turns, every system message right after the beginning of the sequence, thoughts of
# earlier turns left out, and the prompt for an answer opens the thought, so that completions begin inside it.
R1_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{{ messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | join('\\n\\n') }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)

_BOS, _EOS, _USER, _ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
_R1_TOKENS = {_BOS: 0, _EOS: 1, "<think>": 128798, "</think>": 128799, _USER: 128803, _ASSISTANT: 128804, "<|EOT|>": 128805}
_V3_TOKENS = {name: number for name, number in _R1_TOKENS.items() if "think" not in name}
_R1_QWEN_TOKENS = {
    _EOS: 151643,
    _USER: 151644,
    _ASSISTANT: 151645,
    _BOS: 151646,  # what the tokenizer begins with; config.json's bos_token_id names 151643
    "<|EOT|>": 151647,
    "<think>": 151648,
    "</think>": 151649,
}
_R1_LLAMA_TOKENS = {_BOS: 128000, _EOS: 128001, _USER: 128011, _ASSISTANT: 128012, "<think>": 128013, "</think>": 128014}


class Published(NamedTuple):
    """A named configuration.

    Attributes:
      source: the repository on Hugging Face; empty for r1jax's own tiny ones.
      base: the name of the model that it was distilled into; empty for others.
      tokens: special tokens of the chat and their ids.
      chat_template: Jinja, of R1 and its students; empty for others, whose tokenizers have their own or none.
    """

    config: ModelConfig
    source: str
    base: str = ""
    tokens: Mapping[str, int] = {}
    chat_template: str = ""


class Counts(NamedTuple):
    """How many numbers a model has.

    Attributes:
      total: all, multi-token prediction left out (its layers are for training and speculation, and share embedding and head).
      active: those that one token is multiplied with: of the routed experts the chosen ones; the head; of an embedding that is
        not the head as well nothing, since a token reads one row of it. This is what publishers round (R1: 36.6 billion, "37B").
        All of a model without experts.
      embedding: the embedding's own, which some publishers add to the active ones.
      mtp: of multi-token prediction.
    """

    total: int
    active: int
    embedding: int
    mtp: int


def count(config: ModelConfig) -> Counts:
    """Counts a model's parameters by what a token meets."""
    shapes = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    axes = jax.tree.leaves(logical_axes(config), is_leaf=lambda x: isinstance(x, tuple))
    total = active = embedding = mtp = 0
    for (path, leaf), names in zip(shapes, axes, strict=True):
        size, group = math.prod(leaf.shape), path[0].key
        if group == "mtp":
            mtp += size
            continue
        total += size
        if group == "embed":
            embedding += size
            active += size if config.tie_word_embeddings else 0  # the head
        elif "expert" in names:
            active += size // config.experts.n_routed_experts * config.experts.num_experts_per_tok
        else:
            active += size
    return Counts(total, total if config.experts is None else active, embedding, mtp)


def _yarn(mscale: float, factor: float = 40.0, beta_fast: float = 32.0) -> YarnScaling:
    return YarnScaling(factor, 4096, beta_fast, 1.0, mscale, mscale)


def _deepseek(architecture: str, q_lora_rank: int | None, **fields: Any) -> ModelConfig:
    heads = fields["num_attention_heads"]
    latent = LatentAttention(512, 128, 64, 128, q_lora_rank)
    return ModelConfig(architecture=architecture, num_key_value_heads=heads, head_dim=192, latent=latent, **fields)


_BALANCE = {"aux_loss_alpha": 0.001, "seq_aux": True}  # every config.json of the family says so; V3's report says 1e-4
_V2_GATE = {"scoring_func": "softmax", "group_score": "max", "selection_bias": False, "norm_topk_prob": False, **_BALANCE}

_V3 = _deepseek(
    "deepseek_v3",
    1536,
    vocab_size=129_280,
    hidden_size=7168,
    intermediate_size=18_432,
    num_hidden_layers=61,
    num_attention_heads=128,
    rope_scaling=_yarn(1.0),
    max_position_embeddings=163_840,
    experts=Experts(256, 8, 2048, 1, 3, n_group=8, topk_group=4, routed_scaling_factor=2.5, **_BALANCE),
    num_nextn_predict_layers=1,
    bos_token_id=0,
    eos_token_ids=(1,),
)
_V2 = _deepseek(
    "deepseek_v2",
    1536,
    vocab_size=102_400,
    hidden_size=5120,
    intermediate_size=12_288,
    num_hidden_layers=60,
    num_attention_heads=128,
    # DeepSeek-V2 and -Chat of May 2024 (public copies of their config.json); V2.5 and Coder-V2 say 1.0, as does the inference code.
    rope_scaling=_yarn(0.707),
    max_position_embeddings=163_840,
    experts=Experts(160, 6, 1536, 2, 1, n_group=8, topk_group=3, routed_scaling_factor=16.0, **_V2_GATE),
    bos_token_id=100_000,
    eos_token_ids=(100_001,),
)
_V2_LITE = _deepseek(
    "deepseek_v2",
    None,
    vocab_size=102_400,
    hidden_size=2048,
    intermediate_size=10_944,
    num_hidden_layers=27,
    num_attention_heads=16,
    rope_scaling=_yarn(0.707),
    max_position_embeddings=163_840,
    experts=Experts(64, 6, 1408, 2, 1, **_V2_GATE),
    bos_token_id=100_000,
    eos_token_ids=(100_001,),
)
_MOONLIGHT = _deepseek(  # of a public copy of its config.json
    "deepseek_v3",
    None,
    vocab_size=163_840,
    hidden_size=2048,
    intermediate_size=11_264,
    num_hidden_layers=27,
    num_attention_heads=16,
    rms_norm_eps=1e-5,
    rope_theta=50_000.0,
    max_position_embeddings=8192,
    experts=Experts(64, 6, 1408, 2, 1, routed_scaling_factor=2.446, **_BALANCE),
    bos_token_id=163_584,
    eos_token_ids=(163_585,),
)
_K2 = _deepseek(
    "kimi_k2",
    1536,
    vocab_size=163_840,
    hidden_size=7168,
    intermediate_size=18_432,
    num_hidden_layers=61,
    num_attention_heads=64,
    rope_theta=50_000.0,
    rope_scaling=_yarn(1.0, factor=32.0, beta_fast=1.0),
    max_position_embeddings=131_072,
    experts=Experts(384, 8, 2048, 1, 1, routed_scaling_factor=2.827, **_BALANCE),
    bos_token_id=163_584,
    eos_token_ids=(163_585,),
)


def _qwen(
    hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, theta: float, eps: float, **fields: Any
):
    ids = {"bos_token_id": 151_643, "eos_token_ids": (151_643,)}
    named = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "rope_theta": theta}
    named |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab, "rms_norm_eps": eps}
    return ModelConfig(
        architecture="qwen2", head_dim=128, qkv_bias=True, max_position_embeddings=131_072, **named, **ids, **fields
    )


def _llama(hidden: int, layers: int, heads: int, ffn: int, eos: tuple[int, ...] = (128_001,)) -> ModelConfig:
    named = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads}
    return ModelConfig(
        architecture="llama",
        vocab_size=128_256,
        num_key_value_heads=8,
        head_dim=128,
        rms_norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
        max_position_embeddings=131_072,
        bos_token_id=128_000,
        eos_token_ids=eos,
        **named,
    )


# The Math bases turn at 10,000, the general ones at a million; the 14B and 32B bases have an epsilon of 1e-5, unlike their Instruct
# models; the 1.5B base ties its embeddings, its student does not; students of Math bases read 32 times further than those.
_QWEN_1_5B = _qwen(1536, 28, 12, 2, 8960, 151_936, 1e4, 1e-6)
_QWEN_7B = _qwen(3584, 28, 28, 4, 18_944, 152_064, 1e4, 1e-6)
_QWEN_14B = _qwen(5120, 48, 40, 8, 13_824, 152_064, 1e6, 1e-5)
_QWEN_32B = _qwen(5120, 64, 40, 8, 27_648, 152_064, 1e6, 1e-5)
_LLAMA_8B = _llama(4096, 32, 32, 14_336)
_LLAMA_70B = _llama(8192, 80, 64, 28_672)
_MATH = {"max_position_embeddings": 4096}

# Those of configs/tiny (tools/make_base.py trains them): three layers of width 96; in V3's shape the first is dense, and in the
# others a token meets two of eight experts and the shared one.
_TINY = ModelConfig(
    architecture="qwen2",
    vocab_size=554,
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=24,
    rope_theta=1_000.0,
    qkv_bias=True,
    max_position_embeddings=512,
    pad_token_id=0,
    eos_token_ids=(1, 3),
    dtype="float32",
)
_TINY_LLAMA = dataclasses.replace(
    _TINY, architecture="llama", vocab_size=556, qkv_bias=False, bos_token_id=550, pad_token_id=552, eos_token_ids=(551, 555)
)
_TINY_V3 = dataclasses.replace(
    _TINY,
    architecture="deepseek_v3",
    num_key_value_heads=4,
    head_dim=24,
    qkv_bias=False,
    latent=LatentAttention(kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24, q_lora_rank=64),
    experts=Experts(
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=2,
        topk_group=1,
        routed_scaling_factor=1.0,
    ),
    num_nextn_predict_layers=1,
)


def _student(config: ModelConfig, name: str, base: str, tokens: Mapping[str, int]) -> Published:
    return Published(config, f"deepseek-ai/DeepSeek-R1-Distill-{name}", base, tokens, R1_CHAT_TEMPLATE)


PUBLISHED: dict[str, Published] = {
    "deepseek-r1": Published(_V3, "deepseek-ai/DeepSeek-R1", "", _R1_TOKENS, R1_CHAT_TEMPLATE),
    "deepseek-r1-zero": Published(_V3, "deepseek-ai/DeepSeek-R1-Zero", "", _R1_TOKENS, R1_CHAT_TEMPLATE),
    "deepseek-v3": Published(_V3, "deepseek-ai/DeepSeek-V3", "", _V3_TOKENS),
    "deepseek-v2": Published(_V2, "deepseek-ai/DeepSeek-V2"),
    "deepseek-v2-lite": Published(_V2_LITE, "deepseek-ai/DeepSeek-V2-Lite"),
    "moonlight-16b-a3b": Published(_MOONLIGHT, "moonshotai/Moonlight-16B-A3B"),
    "kimi-k2": Published(_K2, "moonshotai/Kimi-K2-Base"),
    "deepseek-r1-distill-qwen-1.5b": _student(_QWEN_1_5B, "Qwen-1.5B", "qwen2.5-math-1.5b", _R1_QWEN_TOKENS),
    "deepseek-r1-distill-qwen-7b": _student(_QWEN_7B, "Qwen-7B", "qwen2.5-math-7b", _R1_QWEN_TOKENS),
    "deepseek-r1-distill-qwen-14b": _student(_QWEN_14B, "Qwen-14B", "qwen2.5-14b", _R1_QWEN_TOKENS),
    "deepseek-r1-distill-qwen-32b": _student(_QWEN_32B, "Qwen-32B", "qwen2.5-32b", _R1_QWEN_TOKENS),
    "deepseek-r1-distill-llama-8b": _student(_LLAMA_8B, "Llama-8B", "llama-3.1-8b", _R1_LLAMA_TOKENS),
    "deepseek-r1-distill-llama-70b": _student(_LLAMA_70B, "Llama-70B", "llama-3.3-70b-instruct", _R1_LLAMA_TOKENS),
    "qwen2.5-math-1.5b": Published(
        dataclasses.replace(_QWEN_1_5B, tie_word_embeddings=True, **_MATH), "Qwen/Qwen2.5-Math-1.5B"
    ),
    "qwen2.5-math-7b": Published(dataclasses.replace(_QWEN_7B, **_MATH), "Qwen/Qwen2.5-Math-7B"),
    "qwen2.5-14b": Published(_QWEN_14B, "Qwen/Qwen2.5-14B"),
    "qwen2.5-32b": Published(_QWEN_32B, "Qwen/Qwen2.5-32B"),
    "llama-3.1-8b": Published(_LLAMA_8B, "meta-llama/Llama-3.1-8B"),
    "llama-3.3-70b-instruct": Published(
        _llama(8192, 80, 64, 28_672, (128_001, 128_008, 128_009)), "meta-llama/Llama-3.3-70B-Instruct"
    ),
    "tiny-qwen2": Published(_TINY, ""),
    "tiny-llama": Published(_TINY_LLAMA, ""),
    "tiny-deepseek-v3": Published(_TINY_V3, ""),
}
