"""Multi-token prediction: modules that look one token further each, chained, with the embedding and the head of the model.

Depth k joins what depth k - 1 (depth 0: the decoder) holds of token i with the embedding of token i + k, runs one decoder
layer, and predicts token i + k + 1 (arXiv 2412.19437 section 2.2, eq. 21-23).

The paper leaves two things open, and what the published checkpoints were trained with settles them:

* The projection takes the embedding first and the hidden state second; eq. 21 prints them the other way round.
* Hidden states come *after* a norm: depth 1 gets what the decoder's final norm gives, the very states that the head reads, and
  depth k + 1 what depth k's own norm gives. DeepSeek's modelling code, vLLM, SGLang and transformers 5 feed depth 1 so; feeding
  R1's module states from before its norm loses accepted guesses (ROCm/ATOM#1764: 64.6% against 61.4%).

An embedding is never masked at the first position, as vLLM does for its own batches.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.config import ModelConfig
from r1jax.models.deepseek.block import DENSE, EXPERTS, Block, embed, rope_of
from r1jax.models.layers import Linear, RMSNorm, accumulation_dtype
from r1jax.models.parameters import Schema
from r1jax.sharding import constrain


class Predictor(nnx.Module):
    """One depth: ``norm(block(projection [norm(embedding); norm(hidden)]))``."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, eps = config.hidden_size, config.rms_norm_eps
        self.embed_norm = RMSNorm(stack, D, eps)
        self.hidden_norm = RMSNorm(stack, D, eps)
        self.projection = Linear(rngs, stack, (2 * D, D), ("embed", None), 1, config.initializer_range)
        self.block = Block(rngs, stack, config, DENSE if config.experts is None else EXPERTS)
        self.final_norm = RMSNorm(stack, D, eps)

    def __call__(self, hidden, embedding, rope, segment_ids):
        joined = jnp.concatenate([self.embed_norm(embedding), self.hidden_norm(hidden)], -1)
        x = constrain(self.projection(joined), "batch", "sequence", "activation_embed")
        x, _, _, aux = self.block(x, rope, segment_ids, None, None)
        return self.final_norm(x), aux


@functools.lru_cache(maxsize=32)
def _predictor_schema(config: ModelConfig) -> Schema:
    return Schema(lambda rngs: Predictor(rngs, (1,), config))


def mtp_hidden(
    config: ModelConfig,
    params: Any,
    hidden: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    remat: Any = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The states from which each depth predicts.

    Args:
      config: with M = ``num_nextn_predict_layers`` of at least 1.
      params: of the whole model; computation is in their dtype.
      hidden: ``[B, T, D]``, what ``forward`` gave for these tokens.
      tokens, positions, segment_ids: as ``forward`` takes them.
      remat: a policy of ``jax.checkpoint``, or None.

    Returns:
      ``(states [M, B, T, D], aux)``. The head reads from ``states[k - 1, b, i]`` what depth k says of the token k + 1 places after
      i. Where that depth's embedding lies past the end of the segment the state means nothing and nothing reads it: such places
      are attended by none and routed nowhere. ``aux``: ``mtp_experts`` ``[B, T, M, K]``, with the number of experts where a
      place is routed nowhere, and ``mtp_scores`` ``[B, T, M, E]``; empty without experts.
    """
    M, T = config.num_nextn_predict_layers, tokens.shape[1]
    if segment_ids is None:
        segment_ids = jnp.ones_like(tokens)
    # Rotary scores depend on differences of positions alone: those of tokens i serve tokens i + k as well.
    rope = rope_of(config, positions, accumulation_dtype(hidden))

    def depth(weights, hidden, ahead, inside):
        return _predictor_schema(config).bind(weights)(hidden, embed(params, ahead), rope, inside)

    if remat is not None:
        depth = jax.checkpoint(depth, policy=remat, prevent_cse=False)
    states, auxes = [], []
    for k in range(1, M + 1):
        ahead, segment_ahead = (jnp.pad(x[:, k:], ((0, 0), (0, min(k, T)))) for x in (tokens, segment_ids))
        inside = jnp.where(segment_ahead == segment_ids, segment_ids, 0)
        weights = jax.tree.map(lambda x, k=k: x[k - 1], params["mtp"])
        hidden, aux = depth(weights, hidden, ahead, inside)
        if aux:
            aux["experts"] = jnp.where(inside[..., None] > 0, aux["experts"], config.experts.n_routed_experts)
        states.append(hidden)
        auxes.append({f"mtp_{name}": value for name, value in aux.items()})
    return jnp.stack(states), jax.tree.map(lambda *values: jnp.stack(values, 2), *auxes)
