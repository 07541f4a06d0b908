"""The compiled steps: micro-steps add unnormalised gradients, an apply-step clips their whole and updates.

An update is ``grads = zero_grads(); grads, metrics = micro_step(params, grads, batch)`` for each micro-batch, then
``state, figures = apply_step(state, grads)``. The token weights of the batch already say how much each token counts in the
whole update, so nothing here divides by a count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from r1jax.losses import PolicyLoss, grpo_loss, router_bias_update, sft_loss
from r1jax.models import ModelConfig, abstract_params, is_state, param_shardings, statistics
from r1jax.models.logprobs import token_logprobs
from r1jax.sharding import Layout
from r1jax.training.auxiliary import AuxiliaryLoss, PredictAhead, no_auxiliary_loss
from r1jax.training.optimizer import Optimizer
from r1jax.training.state import TrainState, state_shardings

Metrics = dict[str, jax.Array]
# (logprobs [B, T], entropy [B, T], batch) -> (loss, metrics). The loss is a sum over tokens, weighted by the batch's
# token_weight; the metrics combine as losses.merge_metrics says.
TokenLoss = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Metrics]]


def grpo_token_loss(loss: PolicyLoss, *, on_policy: bool = False) -> TokenLoss:
    """GRPO on a batch.

    Args:
      on_policy: one update follows each rollout: the policy that sampled is the one being trained, so no scoring pass is
        needed and ``batch.old_logprobs`` is not read.
    """

    def token_loss(logprobs: jax.Array, entropy: jax.Array, batch: Any) -> tuple[jax.Array, Metrics]:
        return grpo_loss(
            logprobs,
            None if on_policy else batch.old_logprobs,
            batch.advantages,
            batch.token_weight,
            ref_logprobs=batch.ref_logprobs if loss.needs_reference else None,
            sampler_logprobs=batch.sampler_logprobs,
            sequence_index=batch.sequence_index,
            entropy=entropy,
            config=loss,
        )

    return token_loss


def sft_token_loss(logprobs: jax.Array, entropy: jax.Array, batch: Any) -> tuple[jax.Array, Metrics]:
    """Cross-entropy on a batch."""
    return sft_loss(logprobs, batch.token_weight, entropy=entropy)


class ZeroGrads:
    """``zero_grads() -> grads``: an accumulator in float32 at least, laid out like the parameters."""

    def __init__(self, config: ModelConfig, layout: Layout, *, dtype: Any = jnp.float32):
        shapes = abstract_params(config, jnp.promote_types(dtype, jnp.float32))
        self.jitted = jax.jit(
            lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            out_shardings=param_shardings(config, layout),
        )

    def __call__(self) -> Any:
        return self.jitted()


class GradientStep:
    """``micro_step(params, grads, batch) -> (grads, metrics)``: adds one micro-batch's gradients of a loss.

    What a state parameter is updated by (``models.statistics``) is added up in its place among the gradients.

    ``grads`` is donated. ``batch`` is a ``data.Batch`` of one shape, on the host or already laid out; its rows divide over
    the batch shards. ``metrics`` are scalars on the device.

    Args:
      config: of the model.
      layout: the training layout.
      loss: ``(params, batch) -> (loss, (metrics, statistics))``.

    Attributes:
      jitted: the compiled function; call it inside ``layout.use()``.
    """

    def __init__(
        self, config: ModelConfig, layout: Layout, loss: Callable[[Any, Any], tuple[jax.Array, tuple[Metrics, Any]]]
    ):
        self.layout = layout
        shardings = param_shardings(config, layout)

        def micro_step(params: Any, grads: Any, batch: Any) -> tuple[Any, Metrics]:
            new, (metrics, counts) = jax.grad(loss, has_aux=True)(params, batch)
            new = _placed(new, counts)
            return jax.tree.map(lambda total, g: total + g.astype(total.dtype), grads, new), metrics

        self.jitted = jax.jit(
            micro_step,
            in_shardings=(shardings, shardings, layout.sharding(("batch", "sequence"))),
            out_shardings=(shardings, layout.replicated),
            donate_argnums=1,
        )

    def __call__(self, params: Any, grads: Any, batch: Any) -> tuple[Any, Metrics]:
        batch = self.layout.put(batch, ("batch", "sequence"))
        with self.layout.use():
            return self.jitted(params, grads, batch)


class MicroStep(GradientStep):
    """The micro-step of losses on tokens.

    Args:
      config: of the model.
      layout: the training layout.
      token_loss: see ``TokenLoss``.
      temperature: what was sampled with, and is scored with.
      compute_dtype: see ``models.precision``; the master weights are cast once, inside.
      remat: a name of ``models.REMAT_POLICIES``.
      auxiliary: the loss of what the forward pass tells besides.
      ahead: the loss of multi-token prediction; None: its modules are left as they are.
      replay: take the batch's recorded expert choices, where there are some.

    Raises:
      ValueError: ``ahead`` for a model without multi-token prediction.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: Layout,
        token_loss: TokenLoss,
        *,
        temperature: float = 1.0,
        compute_dtype: Any = jnp.float32,
        remat: str = "nothing",
        auxiliary: AuxiliaryLoss = no_auxiliary_loss,
        ahead: PredictAhead | None = None,
        replay: bool = True,
    ):
        if ahead and not config.num_nextn_predict_layers:
            raise ValueError(
                f"a loss of multi-token prediction (coefficient {ahead.coefficient}) for a model without its modules "
                "(num_nextn_predict_layers is 0); set mtp_coefficient to 0"
            )
        passes = {"temperature": temperature, "compute_dtype": compute_dtype, "remat": remat}

        def loss(params: Any, batch: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            scored = batch if replay else batch._replace(routes=None)
            logprobs, entropy, aux = token_logprobs(config, params, scored, **passes)
            value, metrics = token_loss(logprobs, entropy, batch)
            more, told = auxiliary(aux, batch)
            value, metrics = value + more, metrics | told
            if ahead:
                more, told, seen = ahead(config, params, scored, aux["hidden"], **passes)
                value, metrics, aux = value + more, metrics | told, aux | seen
            return value, (metrics, statistics(config, aux, batch.segment_ids > 0))

        super().__init__(config, layout, loss)


class LossStep:
    """``loss_step(params, batch) -> metrics``: what a micro-step says of a micro-batch, without gradients.

    Arguments and metrics are ``MicroStep``'s; nothing is donated.

    Attributes:
      jitted: the compiled function; call it inside ``layout.use()``.
    """

    def __init__(self, config: ModelConfig, layout: Layout, token_loss: TokenLoss, *, compute_dtype: Any = jnp.float32):
        self.layout = layout

        def loss_step(params: Any, batch: Any) -> Metrics:
            logprobs, entropy, _ = token_logprobs(config, params, batch, compute_dtype=compute_dtype, remat="none")
            return token_loss(logprobs, entropy, batch)[1]

        self.jitted = jax.jit(
            loss_step,
            in_shardings=(param_shardings(config, layout), layout.sharding(("batch", "sequence"))),
            out_shardings=layout.replicated,
        )

    def __call__(self, params: Any, batch: Any) -> Metrics:
        batch = self.layout.put(batch, ("batch", "sequence"))
        with self.layout.use():
            return self.jitted(params, batch)


def _placed(tree: Any, some: Any) -> Any:
    """The tree with the leaves of ``some``, a part of such a tree, in their places."""
    if not isinstance(some, dict):
        return some
    return tree | {name: _placed(tree[name], value) for name, value in some.items()}


class ApplyStep:
    """``apply_step(state, grads) -> (state, metrics)``: clips by the norm of the whole gradient, and updates.

    State parameters (``models.is_state``) have no gradient: they are no part of the norm, no optimizer sees them, and they
    move by ``losses.router_bias_update`` of what was counted for them.

    The state is donated and ``grads`` is consumed. Metrics, scalars on the device: ``grad_norm`` (before the clip),
    ``lr``, and ``skipped``: 1 where the gradient was not finite, so that parameters and moments stayed as they were; for a model
    with such state ``expert_load_max``: of all layers, the largest load of an expert, as a multiple of the mean.

    Args:
      bias_rate: of the state parameters.

    Attributes:
      jitted: the compiled function ``(params, opt_state, step, grads)``; call it inside ``layout.use()``.
    """

    def __init__(self, config: ModelConfig, optimizer: Optimizer, layout: Layout, *, bias_rate: float = 0.0):
        self.layout = layout
        states = is_state(config)
        shardings = state_shardings(config, optimizer, layout)
        kept = (shardings.params, shardings.opt_state, layout.replicated)

        def apply_step(params: Any, opt_state: Any, step: jax.Array, grads: Any) -> tuple[Any, Any, jax.Array, Metrics]:
            counts = [count for count, state in zip(jax.tree.leaves(grads), jax.tree.leaves(states)) if state]
            moved = jax.tree.map(
                lambda p, count, state: router_bias_update(p, count, rate=bias_rate) if state else p, params, grads, states
            )
            grads = jax.tree.map(lambda g, state: jnp.zeros_like(g) if state else g, grads, states)
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
            finite = jnp.isfinite(norm)
            if optimizer.clip_norm:
                scale = jnp.minimum(1.0, optimizer.clip_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
                grads = jax.tree.map(lambda g: g * scale, grads)
            updates, new_opt_state = optimizer.transform.update(grads, opt_state, params)
            rate = optimizer.learning_rate(step)
            new_params = jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), moved, updates)
            params, opt_state = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old), (new_params, new_opt_state), (params, opt_state)
            )
            metrics = {"grad_norm": norm, "lr": rate, "skipped": 1.0 - finite}
            if counts:
                loads = [jnp.max(c / jnp.maximum(jnp.mean(c, axis=-1, keepdims=True), 1)) for c in counts]
                metrics["expert_load_max"] = jnp.max(jnp.stack(loads))
            return params, opt_state, step + 1, metrics

        self.jitted = jax.jit(
            apply_step,
            in_shardings=(*kept, shardings.params),
            out_shardings=(*kept, layout.replicated),
            donate_argnums=(0, 1, 2),
        )

    def __call__(self, state: TrainState, grads: Any) -> tuple[TrainState, Metrics]:
        with self.layout.use():
            params, opt_state, step, metrics = self.jitted(state.params, state.opt_state, state.step, grads)
        # Four trees go in and three come out, so grads can't be donated; they are freed here instead.
        jax.tree.map(lambda x: x.delete(), grads)
        return TrainState(params, opt_state, step, state.reference), metrics
