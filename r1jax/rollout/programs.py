"""The compiled programs of the sampler: fill prompts, admit lanes, decode a chunk, copy out, change bucket.

The state is one donated pytree over the mesh. Its shapes are its bucket: P prompt rows, N lanes each, prompts up to S
tokens, completions up to C. Every program is jitted once and compiled once per bucket.

A prompt's last token is not prefilled: it is each lane's first input. So a lane is admitted by setting a few integers,
and there is one place where tokens are drawn.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from r1jax import models
from r1jax.models.cache import axes_by_layer, by_layer, is_axes
from r1jax.models.interface import Cache
from r1jax.ops.head import head_logits
from r1jax.rollout.sampling import Distribution, sample, sequence_keys, uniforms
from r1jax.sharding import Layout

# Up to so many layers, the CPU holds cache and weights layer by layer (``models.cache``): a scan copies each layer's slice of
# both for every token, twice the work of SmolLM2-135M. A layer costs 0.13 s of compiling a bucket's ``decode`` (6 s for its 30
# layers, 2 s for the scan).
LAYERS_IN_A_LOOP = 48


class DecodeState(NamedTuple):
    """Everything that decoding carries. ``B = P * N`` lanes; ``cache.own_length`` is also the tokens drawn so far.

    Attributes:
      cache: prompt and own blocks.
      tokens: int32 ``[B, C]``, drawn so far.
      logprobs: float32 ``[B, C]``.
      last: int32 ``[B]``, the next input.
      keys: uint32 ``[B, 2]``, the sequences' random keys.
      active: bool ``[B]``.
      prompt_routes: uint ``[P, S, L, K]``, the experts of the prompts' tokens but for the last; None: not recorded.
      routes: uint ``[B, C, L, K]``, those of the tokens that were fed: the prompt's last, then the drawn ones.
    """

    cache: Cache
    tokens: jax.Array
    logprobs: jax.Array
    last: jax.Array
    keys: jax.Array
    active: jax.Array
    prompt_routes: jax.Array | None = None
    routes: jax.Array | None = None


class Limits(NamedTuple):
    """When decoding stops, as traced values.

    Attributes:
      stop_ids: int32 ``[n]``, padded with -1.
      max_tokens: of a completion.
      steps: most tokens of this chunk.
      idle: the chunk ends once so many more lanes are idle than at its start.
    """

    stop_ids: jax.Array
    max_tokens: jax.Array
    steps: jax.Array
    idle: jax.Array


class Programs:
    """The jitted programs for one model configuration on one layout. ``record_routes``: keep the experts' choices, where the
    model has experts."""

    def __init__(self, config: models.ModelConfig, layout: Layout, dtype: Any, record_routes: bool):
        self.config, self.layout, self.dtype = config, layout, dtype
        self.route_shape = models.route_shape(config) if record_routes else None
        self.by_layer = layout.platform == "cpu" and config.num_hidden_layers <= LAYERS_IN_A_LOOP
        state = self._state_shardings()
        everywhere = layout.replicated
        donate = functools.partial(jax.jit, donate_argnames="state")
        self.apart = jax.jit(functools.partial(models.layers_apart, config))
        self.empty = jax.jit(self._empty, static_argnums=(0, 1, 2, 3), out_shardings=state)
        self.fill = donate(self._fill, out_shardings=state)
        self.admit = donate(self._admit, out_shardings=state)
        self.decode = donate(self._decode, out_shardings=(state, everywhere))
        self.copy_out = jax.jit(self._copy_out, out_shardings=everywhere)
        self.move = jax.jit(self._move, static_argnames="length", out_shardings=state)

    def decoding_params(self, params: Any) -> Any:
        """The parameters as ``decode`` takes them, to be made once for many chunks."""
        return self.apart(params) if self.by_layer else params

    def _state_shardings(self) -> DecodeState:
        put = self.layout.sharding
        axes = models.block_axes(self.config)
        if self.by_layer:
            axes = axes_by_layer(axes, jax.eval_shape(lambda: models.init_block(self.config, 1, 1, self.dtype)))
        block = jax.tree.map(put, axes, is_leaf=is_axes)
        row = put(("batch",))
        wide = put(("batch", None))
        routes = None if self.route_shape is None else wide
        return DecodeState(Cache(block, row, block, row), wide, wide, row, wide, row, routes, routes)

    def _arranged(self, stacks: Any) -> Any:
        """A block as the state holds it."""
        return by_layer(stacks) if self.by_layer else stacks

    def _rows(self, rows: jax.Array) -> tuple[Any, ...]:
        """The index of some rows of a block's leaves."""
        return (rows,) if self.by_layer else (slice(None), rows)

    def _empty(self, rows: int, lanes: int, prompt_length: int, length: int) -> DecodeState:
        B = rows * lanes
        prompt = self._arranged(models.init_block(self.config, rows, prompt_length, self.dtype))
        own = self._arranged(models.init_block(self.config, B, length, self.dtype))
        zeros = functools.partial(jnp.zeros, dtype=jnp.int32)

        def routes(rows: int, length: int) -> jax.Array | None:
            if self.route_shape is None:
                return None
            layers, chosen, dtype = self.route_shape
            return jnp.zeros((rows, length, layers, chosen), dtype)

        return DecodeState(
            Cache(prompt, zeros(rows), own, zeros(B)),
            tokens=zeros((B, length)),
            logprobs=jnp.zeros((B, length), jnp.promote_types(self.dtype, jnp.float32)),
            last=zeros(B),
            keys=jnp.zeros((B, 2), jnp.uint32),
            active=jnp.zeros(B, bool),
            prompt_routes=routes(rows, prompt_length),
            routes=routes(B, length),
        )

    def _fill(self, params, state: DecodeState, tokens, lengths, rows) -> DecodeState:
        """Prefills prompts ``tokens [R, S]`` (``lengths [R]`` of them; the last token left out) into ``rows [R]``."""
        R, S = tokens.shape
        block = models.init_block(self.config, R, S, self.dtype)
        segments = (jnp.arange(S) < lengths[:, None]).astype(jnp.int32)
        # Padding is at position 0. Were positions constant, XLA would fold rotary angles for seconds while compiling.
        positions = jnp.arange(S) * segments
        _, filled, aux = models.forward(self.config, params, tokens, positions, segments, Cache(block, lengths))

        def put(block, new):  # a row past the end pads the list and is dropped
            return block.at[self._rows(rows)].set(new, mode="drop")

        cache = state.cache._replace(
            prompt=jax.tree.map(put, state.cache.prompt, self._arranged(filled.prompt)),
            prompt_length=state.cache.prompt_length.at[rows].set(lengths, mode="drop"),
        )
        routes = state.prompt_routes
        if routes is not None:
            routes = routes.at[rows].set(aux["experts"].astype(routes.dtype), mode="drop")
        return state._replace(cache=cache, prompt_routes=routes)

    def _admit(self, state: DecodeState, admitted, last, seed, rollout, prompt_ids, samples) -> DecodeState:
        """Starts new sequences in the lanes ``admitted [B]``: their first input and their random keys."""
        keys = sequence_keys(seed, rollout, prompt_ids, samples)
        return state._replace(
            cache=state.cache._replace(own_length=jnp.where(admitted, 0, state.cache.own_length)),
            last=jnp.where(admitted, last, state.last),
            keys=jnp.where(admitted[:, None], keys, state.keys),
            active=state.active | admitted,
        )

    def _decode(self, params, state: DecodeState, distribution: Distribution, limits: Limits):
        """Decodes until the chunk's limits, or until a lane needs a longer bucket. Returns the state and its lanes'
        ``(active, length)``."""
        B, C = state.tokens.shape
        lanes = B // state.cache.prompt_length.shape[0]
        rows = jnp.arange(B)
        prompt_length = jnp.repeat(state.cache.prompt_length, lanes)
        idle_at_start = jnp.sum(~state.active)

        def going_on(carry):
            step, state = carry
            enough_finished = jnp.sum(~state.active) - idle_at_start >= limits.idle
            full = jnp.any(state.active & (state.cache.own_length >= C))
            return (step < limits.steps) & jnp.any(state.active) & ~enough_finished & ~full

        def body(carry):
            step, state = carry
            drawn = state.cache.own_length
            positions = (prompt_length + drawn)[:, None]
            hidden, cache, aux = models.forward(self.config, params, state.last[:, None], positions, cache=state.cache)
            # Taken here: a transpose before the loop would be a copy of the embedding.
            logits = head_logits(hidden[:, 0], models.head_weight(self.config, params))
            tokens, logprobs = sample(logits, uniforms(state.keys, drawn, logits.dtype), distribution)
            place = jnp.where(state.active, drawn, C)  # a place past the end is dropped
            length = drawn + state.active
            routes = state.routes
            if routes is not None:
                routes = routes.at[rows, place].set(aux["experts"][:, 0].astype(routes.dtype), mode="drop")
            stopped = jnp.any(tokens[:, None] == limits.stop_ids, -1) | (length >= limits.max_tokens)
            return step + 1, DecodeState(
                cache=cache._replace(own_length=length),
                tokens=state.tokens.at[rows, place].set(tokens, mode="drop"),
                logprobs=state.logprobs.at[rows, place].set(logprobs, mode="drop"),
                last=jnp.where(state.active, tokens, state.last),
                keys=state.keys,
                active=state.active & ~stopped,
                prompt_routes=state.prompt_routes,
                routes=routes,
            )

        _, state = jax.lax.while_loop(going_on, body, (jnp.int32(0), state))
        return state, (state.active, state.cache.own_length)

    def _copy_out(self, state: DecodeState, lanes):
        """Tokens, log-probabilities and, where recorded, expert choices (the prompt's, then the fed tokens') of some lanes
        ``[n]``, so that decoding may go on meanwhile."""
        if state.routes is None:
            return state.tokens[lanes], state.logprobs[lanes], None
        rows = lanes // (state.last.shape[0] // state.cache.prompt_length.shape[0])
        return state.tokens[lanes], state.logprobs[lanes], (state.prompt_routes[rows], state.routes[lanes])

    def _move(self, state: DecodeState, rows, length: int) -> DecodeState:
        """Moves prompt rows ``rows [P']`` (with their lanes) to a bucket of P' rows and completions of ``length``.

        A row of -1 is an empty one.
        """
        P = state.cache.prompt_length.shape[0]
        N = state.last.shape[0] // P
        source = jnp.maximum(rows, 0)
        lanes = (source[:, None] * N + jnp.arange(N)).reshape(-1)

        def resize(x, axis):
            kept = jax.lax.slice_in_dim(x, 0, min(length, x.shape[axis]), axis=axis)
            padding = [(0, 0)] * x.ndim
            padding[axis] = (0, length - kept.shape[axis])
            return jnp.pad(kept, padding)

        cache = Cache(
            prompt=jax.tree.map(lambda x: x[self._rows(source)], state.cache.prompt),
            prompt_length=state.cache.prompt_length[source],
            own=jax.tree.map(lambda x: resize(x[self._rows(lanes)], -2), state.cache.own),
            own_length=state.cache.own_length[lanes],
        )
        return DecodeState(
            cache,
            tokens=resize(state.tokens[lanes], 1),
            logprobs=resize(state.logprobs[lanes], 1),
            last=state.last[lanes],
            keys=state.keys[lanes],
            active=state.active[lanes] & jnp.repeat(rows >= 0, N),
            prompt_routes=None if state.prompt_routes is None else state.prompt_routes[source],
            routes=None if state.routes is None else resize(state.routes[lanes], 1),
        )


@functools.lru_cache(maxsize=8)
def programs_for(config: models.ModelConfig, layout: Layout, dtype: Any, record_routes: bool = False) -> Programs:
    """The programs that all samplers of one kind share: what one has compiled, none compiles again."""
    return Programs(config, layout, dtype, record_routes)
