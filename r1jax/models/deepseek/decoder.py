"""The DeepSeek decoder: V3, R1, V2, Moonlight, Kimi K2. Leading dense layers, then layers of experts, in two stacks."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.cache import InPlace, by_layer, is_by_layer, write_entry, write_prompts
from r1jax.models.config import ModelConfig
from r1jax.models.deepseek.block import EXPERTS, Block, embed, rope_of, stacks
from r1jax.models.deepseek.mtp import Predictor
from r1jax.models.dense import Embedding
from r1jax.models.interface import Cache
from r1jax.models.layers import Linear, RMSNorm, accumulation_dtype
from r1jax.models.parameters import Schema
from r1jax.models.scalar_head import ScalarHead


class Decoder(nnx.Module):
    """The whole model, as a declaration: ``forward`` below runs its parts."""

    def __init__(self, rngs: nnx.Rngs, config: ModelConfig):
        self.embed = Embedding(rngs, config)
        for name, layers in stacks(config):
            setattr(self, name, Block(rngs, (layers,), config, name))
        self.final_norm = RMSNorm((), config.hidden_size, config.rms_norm_eps)
        if config.num_nextn_predict_layers:
            self.mtp = Predictor(rngs, (config.num_nextn_predict_layers,), config)
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
def _layer_schema(config: ModelConfig, kind: str) -> Schema:
    return Schema(lambda rngs: Block(rngs, (1,), config, kind))


@functools.lru_cache(maxsize=32)
def _norm_schema(config: ModelConfig) -> Schema:
    return Schema(lambda rngs: RMSNorm((), config.hidden_size, config.rms_norm_eps))


def init_block(config: ModelConfig, rows: int, length: int, dtype: Any) -> tuple[dict[str, jax.Array], ...]:
    """One block of cache: for each stack of layers latents and rotary keys ``[L, rows, 1, length, width]``."""
    width = config.latent.kv_lora_rank + config.latent.qk_rope_head_dim
    return tuple({"latent": jnp.zeros((layers, rows, 1, length, width), dtype)} for _, layers in stacks(config))


def block_axes(config: ModelConfig) -> tuple[dict[str, tuple[str | None, ...]], ...]:
    """Logical axes of ``init_block``'s leaves."""
    return tuple({"latent": ("layer", "batch", None, None, None)} for _ in stacks(config))


def head_weight(config: ModelConfig, params: Any) -> jax.Array:
    """The output head ``[D, V]``; the embedding's transpose where they are tied."""
    return params["embed"]["embedding"].T if config.tie_word_embeddings else params["head"]["kernel"]


def route_shape(config: ModelConfig) -> tuple[int, int, str] | None:
    """``(layers, experts per token, smallest dtype)`` of recorded choices; None without experts."""
    layers = dict(stacks(config)).get(EXPERTS)
    if layers is None:
        return None
    return layers, config.experts.num_experts_per_tok, "uint8" if config.experts.n_routed_experts <= 256 else "uint16"


def statistics(config: ModelConfig, aux: dict[str, Any], counted: jax.Array) -> dict[str, Any]:
    """What each state parameter is updated by, in its place in the tree: the load of the experts, ``[L, E]``. With
    ``mtp_hidden``'s ``aux`` in ``aux``, those of multi-token prediction too."""
    if config.experts is None or not config.experts.selection_bias:
        return {}

    def load(experts):  # [B, T, L, K]; a number past the last expert is none
        layer = jnp.arange(experts.shape[2])[:, None]
        ones = jnp.broadcast_to(counted[..., None, None].astype(jnp.float32), experts.shape)
        zeros = jnp.zeros((experts.shape[2], config.experts.n_routed_experts), jnp.float32)
        return {"moe": {"router": {"bias": zeros.at[layer, experts].add(ones, mode="drop")}}}

    own = {EXPERTS: load(aux["experts"])} if "experts" in aux else {}
    predicted = {"mtp": {"block": load(aux["mtp_experts"])}} if "mtp_experts" in aux else {}
    return own | predicted


def forward(config, params, tokens, positions, segment_ids=None, cache=None, routes=None, *, remat=None):
    """See ``models.forward``. ``aux``: ``experts`` ``[B, T, L, K]`` and ``scores`` ``[B, T, L, E]`` of the layers of experts;
    with ``routes`` the experts are those."""
    if segment_ids is None:
        segment_ids = jnp.ones_like(tokens)
    x = embed(params, tokens)
    rope = rope_of(config, positions, accumulation_dtype(x))
    if routes is not None:
        routes = jnp.moveaxis(routes, 2, 0)

    def layer(kind, x, params, prompt, own, routes):
        here = None if cache is None else cache._replace(prompt=prompt, own=own)
        return _layer_schema(config, kind).bind(params)(x, rope, segment_ids, here, routes)

    run = _loop if cache is not None and is_by_layer(cache.own) else functools.partial(_scans, remat=remat)
    x, cache, aux = run(layer, x, params, cache, routes, stacks(config))
    hidden = _norm_schema(config).bind(params["final_norm"])(x)
    return hidden, cache, {name: jnp.moveaxis(value, 0, 2) for name, value in aux.items()}


def _loop(layer, x, params, cache: Cache, routes, kinds):
    """Decoding with the cache layer by layer."""
    own, auxes, done = [], [], 0
    for kind, _ in kinds:
        for number, weights in enumerate(by_layer(params[kind])):
            given = routes[number] if routes is not None and kind == EXPERTS else None
            x, _, block, aux = layer(kind, x, weights, cache.prompt[done], InPlace(cache.own[done]), given)
            own.append(block)
            auxes += [aux] if aux else []
            done += 1
    aux = jax.tree.map(lambda *values: jnp.stack(values), *auxes) if auxes else {}
    return x, cache._replace(own=own), aux


def _scans(layer, x, params, cache: Cache | None, routes, kinds, remat=None):
    """One scan for each stack of layers; returns x, the cache with the new entries, and what the layers told."""
    entries, aux = [], {}
    for number, (kind, _) in enumerate(kinds):

        def one(x, inputs, kind=kind):
            x, new, _, told = layer(kind, x, *inputs)
            return x, (None if cache is None else new, told)

        if remat is not None:
            one = jax.checkpoint(one, policy=remat, prevent_cse=False)
        prompt = None if cache is None else cache.prompt[number]
        own = None if cache is None or cache.own is None else cache.own[number]
        given = routes if kind == EXPERTS else None
        x, (new, told) = jax.lax.scan(one, x, (params[kind], prompt, own, given))
        entries.append(new)
        aux |= told
    if cache is None:
        return x, None, aux
    if cache.own is None:
        return x, cache._replace(prompt=write_prompts(cache.prompt, tuple(entries))), aux
    return x, cache._replace(own=write_entry(cache.own, tuple(entries), cache.own_length)), aux
