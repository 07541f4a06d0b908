"""Dense decoders: Qwen2 and Llama. Grouped-query attention, rotary positions, SwiGLU, pre-norm.

Sources: Qwen2.5 (2412.15115), Llama 3 (2407.21783), GQA (2305.13245).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.cache import write
from r1jax.models.config import ModelConfig
from r1jax.models.interface import Cache
from r1jax.models.layers import MLP, Linear, RMSNorm, accumulation_dtype, apply_rope, rope_frequencies, rotary
from r1jax.models.parameters import Schema, parameter
from r1jax.ops.attention import decode_attention, packed_attention
from r1jax.sharding import constrain

Rope = tuple[jax.Array, jax.Array]  # cosines and sines of the positions


class Attention(nnx.Module):
    """Grouped-query attention."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, N, K, H = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        scale, bias = config.initializer_range, config.qkv_bias
        self.q = Linear(rngs, stack, "BTD,DNH->BTNH", (D, N, H), ("embed", "heads", "head_dim"), 2, scale, bias)
        self.k = Linear(rngs, stack, "BTD,DKH->BTKH", (D, K, H), ("embed", "kv_heads", "head_dim"), 2, scale, bias)
        self.v = Linear(rngs, stack, "BTD,DKH->BTKH", (D, K, H), ("embed", "kv_heads", "head_dim"), 2, scale, bias)
        self.o = Linear(rngs, stack, "BTNH,NHD->BTD", (N, H, D), ("heads", "head_dim", "embed"), 1, scale, config.o_bias)
        self.scale = H**-0.5

    def __call__(self, x, rope: Rope, segment_ids, cache: Cache | None):
        """``x [B, T, D]``; ``cache`` holds one layer's slice. Returns the output and the new entries ``[B, K, T, H]``."""
        q = apply_rope(constrain(self.q(x), "batch", "sequence", "activation_heads", None), *rope)
        k = apply_rope(self.k(x), *rope)
        v = self.v(x)
        entries = {"k": k.swapaxes(1, 2), "v": v.swapaxes(1, 2)}
        if cache is None or cache.own is None:
            y = packed_attention(q, k, v, segment_ids, self.scale)
        else:
            new, prompt, own = ((block["k"], block["v"]) for block in (entries, cache.prompt, cache.own))
            y = decode_attention(q, *new, prompt, cache.prompt_length, own, cache.own_length, self.scale)
        return self.o(constrain(y, "batch", "sequence", "activation_heads", None)), entries


class Block(nnx.Module):
    """One decoder layer."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, eps = config.hidden_size, config.rms_norm_eps
        self.input_norm = RMSNorm(stack, D, eps)
        self.attention = Attention(rngs, stack, config)
        self.post_attention_norm = RMSNorm(stack, D, eps)
        self.mlp = MLP(rngs, stack, D, config.intermediate_size, config.initializer_range, config.mlp_bias)

    def __call__(self, x, rope: Rope, segment_ids, cache: Cache | None):
        with jax.named_scope("attention"):
            y, entries = self.attention(self.input_norm(x), rope, segment_ids, cache)
            x = constrain(x + y, "batch", "sequence", "activation_embed")
        with jax.named_scope("mlp"):
            x = constrain(x + self.mlp(self.post_attention_norm(x)), "batch", "sequence", "activation_embed")
        return x, entries


class Embedding(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, config: ModelConfig):
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = parameter(rngs, shape, ("vocab", "embed"), config.initializer_range)


class Decoder(nnx.Module):
    """The whole model, as a declaration: ``forward`` below runs its parts."""

    def __init__(self, rngs: nnx.Rngs, config: ModelConfig):
        self.embed = Embedding(rngs, config)
        self.layers = Block(rngs, (config.num_hidden_layers,), config)
        self.final_norm = RMSNorm((), config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            shape = (config.hidden_size, config.vocab_size)
            self.head = Linear(rngs, (), "BTD,DV->BTV", shape, ("embed", "vocab"), 1, config.initializer_range)


@functools.lru_cache(maxsize=32)
def schema(config: ModelConfig) -> Schema:
    """Every parameter of the model."""
    return Schema(lambda rngs: Decoder(rngs, config))


@functools.lru_cache(maxsize=32)
def _layer_schema(config: ModelConfig) -> Schema:
    return Schema(lambda rngs: Block(rngs, (config.num_hidden_layers,), config))


@functools.lru_cache(maxsize=32)
def _norm_schema(config: ModelConfig) -> Schema:
    return Schema(lambda rngs: RMSNorm((), config.hidden_size, config.rms_norm_eps))


def init_block(config: ModelConfig, rows: int, length: int, dtype: Any) -> dict[str, jax.Array]:
    """One block of cache: keys and values ``[L, rows, K, length, H]``."""
    shape = (config.num_hidden_layers, rows, config.num_key_value_heads, length, config.head_dim)
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype)}


def block_axes(config: ModelConfig) -> dict[str, tuple[str | None, ...]]:
    """Logical axes of ``init_block``'s leaves."""
    axes = ("layer", "batch", "kv_heads", None, "head_dim")
    return {"k": axes, "v": axes}


def forward(config, params, tokens, positions, segment_ids=None, cache=None, routes=None, *, remat=None):
    """See ``models.forward``."""
    del routes  # a dense model routes nothing
    if segment_ids is None:
        segment_ids = jnp.ones_like(tokens)
    x = params["embed"]["embedding"][tokens]
    x = constrain(x, "batch", "sequence", "activation_embed")
    frequencies = rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    rope = rotary(positions, frequencies, accumulation_dtype(x))
    layer_schema = _layer_schema(config)

    def layer(x, inputs):
        layer_params, blocks = inputs
        here = None if cache is None else cache._replace(prompt=blocks[0], own=blocks[1])
        x, entries = layer_schema.bind(layer_params)(x, rope, segment_ids, here)
        return x, None if cache is None else entries

    if remat is not None:
        layer = jax.checkpoint(layer, policy=remat, prevent_cse=False)
    blocks = (None, None) if cache is None else (cache.prompt, cache.own)
    x, entries = jax.lax.scan(layer, x, (params["layers"], blocks))
    hidden = _norm_schema(config).bind(params["final_norm"])(x)
    return hidden, None if cache is None else write(cache, entries), {}


def head_weight(config: ModelConfig, params: Any) -> jax.Array:
    """The output head ``[D, V]``; the embedding's transpose where they are tied."""
    return params["embed"]["embedding"].T if config.tie_word_embeddings else params["head"]["kernel"]
