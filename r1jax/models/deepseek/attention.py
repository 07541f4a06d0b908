"""Multi-head latent attention: naive for packed rows and prefill, absorbed for decoding on the latent cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.cache import InPlace, write_layers_entry
from r1jax.models.config import ModelConfig
from r1jax.models.interface import Cache
from r1jax.models.layers import Linear, RMSNorm, interleaved_rope, score_magnitude
from r1jax.ops.attention import decode_attention, packed_attention
from r1jax.sharding import constrain

Rope = tuple[jax.Array, jax.Array]

# The latents' norms do not take the model's epsilon, neither in DeepSeek's code nor in transformers.
LATENT_NORM_EPS = 1e-6


class LatentQueries(nnx.Module):
    """Queries through a low-rank latent."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, N, R, H = config.hidden_size, config.num_attention_heads, config.latent.q_lora_rank, config.head_dim
        scale = config.initializer_range
        self.down = Linear(rngs, stack, (D, R), ("embed", None), 1, scale)
        self.norm = RMSNorm(stack, R, LATENT_NORM_EPS)
        self.up = Linear(rngs, stack, (R, N, H), ("latent", "heads", "head_dim"), 2, scale)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.up(self.norm(self.down(x)))


class LatentAttention(nnx.Module):
    """MLA (arXiv 2405.04434 section 2.1; 2412.19437 eq. 1-11).

    Per token the cache holds the normed latent of keys and values and one rotary key that all heads share. Decoding never
    expands it: ``W_kvb`` moves over to the query and to the result, and the latent is both key and value of one head.
    """

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, N, H, latent = config.hidden_size, config.num_attention_heads, config.head_dim, config.latent
        self.latent, scale = latent, config.initializer_range
        if latent.q_lora_rank is None:
            self.q = Linear(rngs, stack, (D, N, H), ("embed", "heads", "head_dim"), 2, scale)
        else:
            self.q = LatentQueries(rngs, stack, config)
        R, width = latent.kv_lora_rank, latent.qk_nope_head_dim + latent.v_head_dim
        self.kv_down = Linear(rngs, stack, (D, R + latent.qk_rope_head_dim), ("embed", None), 1, scale)
        self.kv_norm = RMSNorm(stack, R, LATENT_NORM_EPS)
        self.kv_up = Linear(rngs, stack, (R, N, width), ("latent", "heads", "head_dim"), 2, scale)
        outputs = (N, latent.v_head_dim, D)
        self.o = Linear(rngs, stack, outputs, ("heads", "head_dim", "embed"), 1, scale)
        self.scale = H**-0.5 * score_magnitude(config.rope_scaling)

    def __call__(self, x, rope: Rope, segment_ids, cache: Cache | None):
        """As ``dense.Attention``; an entry of the cache is ``[B, 1, T, latent and rotary key]``."""
        R, nope = self.latent.kv_lora_rank, self.latent.qk_nope_head_dim
        q = constrain(self.q(x), "batch", "sequence", "activation_heads", None)
        q_nope, q_rope = q[..., :nope], interleaved_rope(q[..., nope:], *rope)
        down = self.kv_down(x)
        latent = self.kv_norm(down[..., :R])
        k_rope = interleaved_rope(down[..., None, R:], *rope)  # one head
        entries, own = {"latent": jnp.concatenate([latent[:, :, None], k_rope], -1).swapaxes(1, 2)}, None
        if cache is None or cache.own is None:
            y = self._expanded(q_nope, q_rope, latent, k_rope, segment_ids)
        else:
            y, own = self._absorbed(q_nope, q_rope, entries, cache)
        return self.o(constrain(y, "batch", "sequence", "activation_heads", None)), entries, own

    def _expanded(self, q_nope, q_rope, latent, k_rope, segment_ids):
        """Keys and values of every head, from their latent."""
        kv = constrain(self.kv_up(latent), "batch", "sequence", "activation_heads", None)
        k_nope, v = jnp.split(kv, [self.latent.qk_nope_head_dim], -1)
        k = jnp.concatenate([k_nope, jnp.broadcast_to(k_rope, (*k_nope.shape[:3], k_rope.shape[-1]))], -1)
        return packed_attention(jnp.concatenate([q_nope, q_rope], -1), k, v, segment_ids, self.scale)

    def _absorbed(self, q_nope, q_rope, entries, cache: Cache):
        R, nope = self.latent.kv_lora_rank, self.latent.qk_nope_head_dim
        kernel = self.kv_up.kernel[...]
        q = jnp.concatenate([jnp.einsum("BTNH,RNH->BTNR", q_nope, kernel[..., :nope]), q_rope], -1)
        own, newest, length = cache.own, (entries["latent"],) * 2, cache.own_length
        if isinstance(own, InPlace):
            own, newest, length = write_layers_entry(own.block, entries, length), None, length + 1
        # The rotary key rides along as a value and is dropped: a slice of the cache would be a copy of it.
        shared, mine = ((block["latent"],) * 2 for block in (cache.prompt, own))
        y = decode_attention(q, shared, cache.prompt_length, mine, length, newest, self.scale)
        return jnp.einsum("BTNR,RNH->BTNH", y[..., :R], kernel[..., nope:]), own
