"""What training carries from update to update."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from r1jax.models import ModelConfig, abstract_params, param_shardings
from r1jax.models.precision import cast, dtype_at
from r1jax.sharding import Layout
from r1jax.training.optimizer import Optimizer


class TrainState(NamedTuple):
    """A pytree of global arrays; all of it is in a checkpoint.

    Attributes:
      params: the master weights, float32.
      opt_state: the optimizer's, its moments laid out like ``params``.
      step: int32 scalar, updates done.
      reference: the reference policy's parameters in the compute dtype, or None.
    """

    params: Any
    opt_state: Any
    step: Any
    reference: Any = None


def state_shardings(config: ModelConfig, optimizer: Optimizer, layout: Layout, reference: bool = False) -> TrainState:
    """A ``NamedSharding`` for each leaf of the state."""
    shardings = param_shardings(config, layout)
    abstract = jax.eval_shape(optimizer.transform.init, abstract_params(config))
    # Without this, jit would put zeros that depend on no data on one device.
    moments = optax.tree_map_params(
        optimizer.transform, lambda _, s: s, abstract, shardings, transform_non_params=lambda _: layout.replicated
    )
    return TrainState(shardings, moments, layout.replicated, shardings if reference else None)


def abstract_state(
    config: ModelConfig, optimizer: Optimizer, layout: Layout, reference_dtype: Any = None, dtype: Any = jnp.float32
) -> TrainState:
    """The state as ``jax.ShapeDtypeStruct`` with shardings: what restoring and ahead-of-time compilation need.

    Args:
      reference_dtype: of the reference's parameters; None: there is no reference.
      dtype: of the master weights.
    """
    params = abstract_params(config, dtype)
    state = TrainState(
        params,
        jax.eval_shape(optimizer.transform.init, params),
        jax.ShapeDtypeStruct((), jnp.int32),
        None if reference_dtype is None else abstract_params(config, reference_dtype),
    )
    shardings = state_shardings(config, optimizer, layout, reference_dtype is not None)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def init_state(
    config: ModelConfig,
    params: Any,
    optimizer: Optimizer,
    layout: Layout,
    *,
    reference: Any = None,
    dtype: Any = jnp.float32,
) -> TrainState:
    """The state before the first update.

    Args:
      params: initial weights, in any layout and dtype. They become the state's: do not use them afterwards.
      reference: the reference policy's parameters (``copy_params`` of ``params``, or another model's), or None.
      dtype: of the master weights; float64 is for tests.
    """
    shardings = state_shardings(config, optimizer, layout, reference is not None)
    params = jax.device_put(cast(params, dtype), shardings.params)
    opt_state = jax.jit(optimizer.transform.init, out_shardings=shardings.opt_state)(params)
    step = jax.device_put(jnp.zeros((), jnp.int32), layout.replicated)
    return TrainState(params, opt_state, step, None if reference is None else jax.device_put(reference, shardings.reference))


def copy_params(params: Any, dtype: Any) -> Any:
    """A copy in ``dtype`` that shares no memory: a reference that outlives the donated original.

    Refreshing the reference is ``state._replace(reference=copy_params(state.params, dtype))``.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: jnp.array(x, dtype_at(path, dtype), copy=True), params)
