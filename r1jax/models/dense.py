"""Dense decoders: Qwen2 and Llama. Grouped-query attention, rotary positions, SwiGLU, pre-norm.

Sources: Qwen2.5 (2412.15115), Llama 3 (2407.21783), GQA (2305.13245).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.cache import InPlace, by_layer, is_by_layer, write_entry, write_layers_entry, write_prompts
from r1jax.models.config import ModelConfig
from r1jax.models.interface import Cache
from r1jax.models.layers import MLP, Linear, RMSNorm, accumulation_dtype, apply_rope, rope_frequencies, rotary
from r1jax.models.parameters import Schema, parameter
from r1jax.models.scalar_head import ScalarHead
from r1jax.ops.attention import decode_attention, packed_attention
from r1jax.sharding import constrain

Rope = tuple[jax.Array, jax.Array]  # cosines and sines of the positions


class Attention(nnx.Module):
    """Grouped-query attention."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, N, K, H = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        scale, bias = config.initializer_range, config.qkv_bias
        self.q = Linear(rngs, stack, (D, N, H), ("embed", "heads", "head_dim"), 2, scale, bias)
        self.k = Linear(rngs, stack, (D, K, H), ("embed", "kv_heads", "head_dim"), 2, scale, bias)
        self.v = Linear(rngs, stack, (D, K, H), ("embed", "kv_heads", "head_dim"), 2, scale, bias)
        self.o = Linear(rngs, stack, (N, H, D), ("heads", "head_dim", "embed"), 1, scale, config.o_bias)
        self.scale = H**-0.5

    def __call__(self, x, rope: Rope, segment_ids, cache: Cache | None):
        """``x [B, T, D]``; ``cache`` holds one layer's blocks. Returns the output, the new entries ``[B, K, T, H]`` and, when
        decoding, the own block, with the new entry in it if it is ``InPlace``."""
        q = apply_rope(constrain(self.q(x), "batch", "sequence", "activation_heads", None), *rope)
        k = apply_rope(self.k(x), *rope)
        v = self.v(x)
        entries, own = {"k": k.swapaxes(1, 2), "v": v.swapaxes(1, 2)}, None
        if cache is None or cache.own is None:
            y = packed_attention(q, k, v, segment_ids, self.scale)
        else:
            newest, length = (entries["k"], entries["v"]), cache.own_length
            own = cache.own
            if isinstance(own, InPlace):
                own, newest, length = write_layers_entry(own.block, entries, length), None, length + 1
            shared, mine = ((block["k"], block["v"]) for block in (cache.prompt, own))
            y = decode_attention(q, shared, cache.prompt_length, mine, length, newest, self.scale)
        return self.o(constrain(y, "batch", "sequence", "activation_heads", None)), entries, own


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
            y, entries, own = self.attention(self.input_norm(x), rope, segment_ids, cache)
            x = constrain(x + y, "batch", "sequence", "activation_embed")
        with jax.named_scope("mlp"):
            x = constrain(x + self.mlp(self.post_attention_norm(x)), "batch", "sequence", "activation_embed")
        return x, entries, own


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
        if config.num_labels:
            self.score = ScalarHead(rngs, config)
        elif not config.tie_word_embeddings:
            shape = (config.hidden_size, config.vocab_size)
            self.head = Linear(rngs, (), shape, ("embed", "vocab"), 1, config.initializer_range)


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
    """One block of cache, in stacks: keys and values ``[L, rows, K, length, H]``."""
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
    # Gathered over fsdp before the lookup: left to itself, XLA would replicate what was looked up.
    x = constrain(params["embed"]["embedding"], "activation_vocab", "activation_embed")[tokens]
    x = constrain(x, "batch", "sequence", "activation_embed")
    frequencies = rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    rope = rotary(positions, frequencies, accumulation_dtype(x))
    layer_schema = _layer_schema(config)

    def layer(x, params, prompt, own):
        here = None if cache is None else cache._replace(prompt=prompt, own=own)
        return layer_schema.bind(params)(x, rope, segment_ids, here)

    if cache is not None and is_by_layer(cache.own):
        own = []
        for weights, prompt, block in zip(by_layer(params["layers"]), cache.prompt, cache.own):
            x, _, block = layer(x, weights, prompt, InPlace(block))
            own.append(block)
        cache = cache._replace(own=own)
    else:
        x, cache = _scan(layer, x, params["layers"], cache, remat)
    hidden = _norm_schema(config).bind(params["final_norm"])(x)
    return hidden, cache, {}


def _scan(layer, x, params, cache: Cache | None, remat):
    """``layer`` over stacks of parameters and blocks; returns x and the cache with the new entries."""

    def one(x, inputs):
        x, entries, _ = layer(x, *inputs)
        return x, None if cache is None else entries

    if remat is not None:
        one = jax.checkpoint(one, policy=remat, prevent_cse=False)
    if cache is None:
        return jax.lax.scan(one, x, (params, None, None))
    x, entries = jax.lax.scan(one, x, (params, cache.prompt, cache.own))
    if cache.own is None:
        return x, cache._replace(prompt=write_prompts(cache.prompt, entries))
    return x, cache._replace(own=write_entry(cache.own, entries, cache.own_length))


def route_shape(config: ModelConfig) -> None:
    """Dense models route nothing."""


def statistics(config: ModelConfig, aux: dict[str, Any], counted: jax.Array) -> dict[str, Any]:
    """Dense models have no state parameters."""
    return {}


def head_weight(config: ModelConfig, params: Any) -> jax.Array:
    """The output head ``[D, V]``; the embedding's transpose where they are tied."""
    return params["embed"]["embedding"].T if config.tie_word_embeddings else params["head"]["kernel"]
