"""DeepSeekMoE: the gate, the routed experts, the shared ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.config import Experts, ModelConfig
from r1jax.models.layers import MLP, accumulation_dtype
from r1jax.models.parameters import constant, parameter
from r1jax.ops.experts import expert_mlp
from r1jax.sharding import constrain

Array = jax.Array


class Router(nnx.Module):
    """The gate. Scores are float32 at ``HIGHEST`` precision: a choice flips on little."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        layer = ("layer",) * len(stack)
        D, E = config.hidden_size, config.experts.n_routed_experts
        self.experts = config.experts
        self.kernel = parameter(rngs, (*stack, D, E), (*layer, "embed", None), config.initializer_range)
        if config.experts.selection_bias:
            self.bias = constant((*stack, E), (*layer, None), 0.0, state=True)

    def scores(self, x: Array) -> Array:
        """``[B, T, E]``: how well each expert suits each token."""
        dtype = accumulation_dtype(x)
        logits = jnp.einsum(
            "BTD,DE->BTE", x.astype(dtype), self.kernel[...].astype(dtype), precision=jax.lax.Precision.HIGHEST
        )
        return jax.nn.sigmoid(logits) if self.experts.scoring_func == "sigmoid" else jax.nn.softmax(logits)

    def choose(self, scores: Array) -> Array:
        """The experts of each token, ``[B, T, K]``. A tie goes to the lower number."""
        choice = jax.lax.stop_gradient(scores)
        if self.experts.selection_bias:
            choice = choice + self.bias[...].astype(choice.dtype)
        if self.experts.n_group > 1:
            choice = jnp.where(in_best_groups(choice, self.experts), choice, -jnp.inf)
        return jax.lax.top_k(choice, self.experts.num_experts_per_tok)[1]

    def weigh(self, scores: Array, experts: Array) -> Array:
        """The weights of the chosen experts, ``[B, T, K]``."""
        weights = jnp.take_along_axis(scores, experts, axis=-1)
        if self.experts.norm_topk_prob:
            weights = weights / (jnp.sum(weights, -1, keepdims=True) + 1e-20)
        return weights * self.experts.routed_scaling_factor


def in_best_groups(choice: Array, experts: Experts) -> Array:
    """Whether each expert lies in one of its token's best groups: bool, as ``choice [B, T, E]``.

    The others are masked with -inf, not with 0 (which would beat an expert whose bias makes it negative).
    """
    B, T, E = choice.shape
    grouped = choice.reshape(B, T, experts.n_group, -1)
    best = jax.lax.top_k(grouped, 2 if experts.group_score == "top2" else 1)[0].sum(-1)
    chosen = jax.lax.top_k(best, experts.topk_group)[1]
    kept = jnp.any(chosen[..., None] == jnp.arange(experts.n_group), axis=-2)
    return jnp.repeat(kept, E // experts.n_group, axis=-1)


class Mixture(nnx.Module):
    """``sum_k w_k E_k(x) + shared(x)`` (arXiv 2412.19437 eq. 12-15). No token is dropped."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], config: ModelConfig):
        D, E, F = config.hidden_size, config.experts.n_routed_experts, config.experts.moe_intermediate_size
        layer, scale = ("layer",) * len(stack), config.initializer_range
        self.router = Router(rngs, stack, config)
        inward = (*layer, "expert", "expert_embed", None)
        self.gate = parameter(rngs, (*stack, E, D, F), inward, scale)
        self.up = parameter(rngs, (*stack, E, D, F), inward, scale)
        self.down = parameter(rngs, (*stack, E, F, D), (*layer, "expert", None, "expert_embed"), scale)
        self.total = E
        if config.experts.n_shared_experts:
            self.shared = MLP(rngs, stack, D, F * config.experts.n_shared_experts, scale, False)

    def __call__(self, x: Array, segment_ids: Array, routes: Array | None) -> tuple[Array, dict[str, Array]]:
        """``(y [B, T, D], {"experts": [B, T, K], "scores": [B, T, E]})``. ``routes [B, T, K]``: choices to replay."""
        scores = self.router.scores(x)
        experts = self.router.choose(scores) if routes is None else routes.astype(jnp.int32)
        weights = self.router.weigh(scores, experts)
        sent = jnp.where(segment_ids[..., None] > 0, experts, self.total)  # padding is routed nowhere
        y = expert_mlp(x, sent, weights, self.gate[...], self.up[...], self.down[...])
        if hasattr(self, "shared"):
            y = y + self.shared(x)
        return constrain(y, "batch", "sequence", "activation_embed"), {"experts": experts, "scores": scores}
