"""AdamW with a learning-rate schedule, from a recipe's settings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from r1jax.config import OptimizerSettings

SCHEDULES = ("constant", "linear", "cosine")
MOMENTS = ("float32", "bfloat16")


class Optimizer(NamedTuple):
    """What an apply-step needs.

    Attributes:
      transform: gradients -> updates of a learning rate of -1; its state has the moments.
      learning_rate: ``step -> float32``, for the update that follows ``step`` earlier ones.
      clip_norm: the gradient's norm is cut to this; 0: never.
    """

    transform: optax.GradientTransformation
    learning_rate: Callable[[jax.Array], jax.Array]
    clip_norm: float


def make_optimizer(settings: OptimizerSettings, total_steps: int, *, held: Collection[str] = ()) -> Optimizer:
    """AdamW (arXiv 1711.05101): decoupled weight decay, on everything but norm scales and biases.

    Args:
      settings: see ``config.OptimizerSettings``.
      total_steps: updates of the stage, where the schedule ends.
      held: groups of parameters (keys at the top of the tree) that no loss moves, so that nothing must: they are not decayed.

    Raises:
      ValueError: a setting that is out of range.
    """
    for name, allowed in (
        ("lr", settings.lr >= 0),
        ("warmup_steps", settings.warmup_steps >= 0),
        ("final_lr_ratio", settings.final_lr_ratio >= 0),
        ("b1", 0 <= settings.b1 < 1),
        ("b2", 0 <= settings.b2 < 1),
        ("epsilon", settings.epsilon > 0),
        ("weight_decay", settings.weight_decay >= 0),
        ("clip_norm", settings.clip_norm >= 0),
    ):
        if not allowed:
            raise ValueError(f"optimizer.{name} can't be {getattr(settings, name)}")
    if settings.moments_dtype not in MOMENTS:
        raise ValueError(f"optimizer.moments_dtype {settings.moments_dtype!r} is unknown; known: {', '.join(MOMENTS)}")
    moments = optax.scale_by_adam(settings.b1, settings.b2, settings.epsilon)
    if settings.moments_dtype == "bfloat16":
        moments = _stored_in_bfloat16(moments)
    parts = [moments]
    if settings.weight_decay:
        decayed = functools.partial(_decayed, held=held)
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask=decayed))
    return Optimizer(optax.chain(*parts), learning_rate(settings, total_steps), settings.clip_norm)


def learning_rate(settings: OptimizerSettings, total_steps: int) -> Callable[[jax.Array], jax.Array]:
    """The schedule: a linear warm-up whose first update already learns, then constant, linear or cosine.

    With w warm-up steps, update k (from 0) has ``lr (k + 1) / w`` before step w; the last update of a decaying schedule
    has ``lr * final_lr_ratio``.
    """
    if settings.schedule not in SCHEDULES:
        raise ValueError(f"optimizer.schedule {settings.schedule!r} is unknown; known: {', '.join(SCHEDULES)}")
    warmup, span = settings.warmup_steps, max(total_steps - 1 - settings.warmup_steps, 1)

    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
        done = jnp.clip((step - warmup) / span, 0.0, 1.0)
        share = {"constant": 0.0, "linear": done, "cosine": 0.5 - 0.5 * jnp.cos(jnp.pi * done)}[settings.schedule]
        return settings.lr * rising * (1 - (1 - settings.final_lr_ratio) * share)

    return rate


def _decayed(params: Any, held: Collection[str]) -> Any:
    """Which parameters are decayed: not norm scales, biases, and what is held."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("scale", "bias") and path[0].key not in held, params
    )


def _stored_in_bfloat16(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same arithmetic in float32 with a state of half the size."""

    def cast(state: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def init(params: Any) -> Any:
        return cast(inner.init(params), jnp.bfloat16)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(gradients, cast(state, jnp.float32), params)
        return updates, cast(state, jnp.bfloat16)

    return optax.GradientTransformation(init, update)
