"""One layer of a DeepSeek decoder, and what goes into the first: shared by the decoder and multi-token prediction."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from r1jax.models.config import ModelConfig
from r1jax.models.deepseek.attention import LatentAttention
from r1jax.models.deepseek.experts import Mixture
from r1jax.models.interface import Cache
from r1jax.models.layers import MLP, RMSNorm, rope_frequencies, rotary, rotary_magnitude
from r1jax.sharding import constrain

DENSE, EXPERTS = "dense_layers", "expert_layers"


def stacks(config: ModelConfig) -> tuple[tuple[str, int], ...]:
    """``(name, layers)`` of the stacks that the model has, in order."""
    dense = config.num_hidden_layers if config.experts is None else config.experts.first_k_dense_replace
    both = ((DENSE, dense), (EXPERTS, config.num_hidden_layers - dense))
    return tuple((name, layers) for name, layers in both if layers)


class Block(nnx.Module):
    """One decoder layer, dense or of experts."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig, kind: str):
        D, eps = config.hidden_size, config.rms_norm_eps
        self.input_norm = RMSNorm(stack, D, eps)
        self.attention = LatentAttention(rngs, stack, config)
        self.post_attention_norm = RMSNorm(stack, D, eps)
        if kind == EXPERTS:
            self.moe = Mixture(rngs, stack, config)
        else:
            self.mlp = MLP(rngs, stack, D, config.intermediate_size, config.initializer_range, config.mlp_bias)

    def __call__(self, x, rope, segment_ids, cache: Cache | None, routes):
        with jax.named_scope("attention"):
            y, entries, own = self.attention(self.input_norm(x), rope, segment_ids, cache)
            x = constrain(x + y, "batch", "sequence", "activation_embed")
        y = self.post_attention_norm(x)
        if hasattr(self, "moe"):
            with jax.named_scope("experts"):
                y, aux = self.moe(y, segment_ids, routes)
        else:
            with jax.named_scope("mlp"):
                y, aux = self.mlp(y), {}
        return constrain(x + y, "batch", "sequence", "activation_embed"), entries, own, aux


def embed(params: Any, tokens: jax.Array) -> jax.Array:
    """Embeddings of tokens, ``[B, T, D]``."""
    # Gathered over fsdp before the lookup: left to itself, XLA would replicate what was looked up.
    x = constrain(params["embed"]["embedding"], "activation_vocab", "activation_embed")[tokens]
    return constrain(x, "batch", "sequence", "activation_embed")


def rope_of(config: ModelConfig, positions: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the rotary part."""
    frequencies = rope_frequencies(config.latent.qk_rope_head_dim, config.rope_theta, config.rope_scaling)
    magnitude = rotary_magnitude(config.rope_scaling)
    return tuple(x * magnitude for x in rotary(positions, frequencies, dtype))
