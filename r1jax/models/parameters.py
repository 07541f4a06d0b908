"""Parameters, declared once: NNX modules are the schema, nested dicts of arrays are what everything else holds.

``parameter`` keeps the logical axes of each array in a metadata key of our own, so nothing here depends on how flax
itself annotates shardings. ``Schema`` turns a module class into shapes, axes, initial values and bound modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.precision import cast, dtype_at
from r1jax.sharding import Layout

AXES, STATE = "logical_axes", "state"


def parameter(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], scale: float) -> nnx.Param:
    """A weight drawn from a normal distribution of standard deviation ``scale``."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) * scale, **{AXES: axes, STATE: False})


def constant(shape: tuple[int, ...], axes: tuple[str | None, ...], value: float, *, state: bool = False) -> nnx.Param:
    """A scale or a bias, initially ``value``. ``state``: no gradient moves it, but what the forward pass counts."""
    return nnx.Param(jnp.full(shape, value), **{AXES: axes, STATE: state})


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


class Schema:
    """The parameters of a module, without their values.

    Args:
      build: makes the module from ``nnx.Rngs``; only ever evaluated abstractly or under jit.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        self._graph, self._state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def shapes(self, dtype: Any = jnp.float32) -> Any:
        """Nested dict of ``jax.ShapeDtypeStruct``, for computing in ``dtype`` (see ``precision.dtype_at``)."""
        return jax.tree_util.tree_map_with_path(
            lambda path, x: jax.ShapeDtypeStruct(x.shape, dtype_at(path, dtype)), nnx.to_pure_dict(self._state)
        )

    def axes(self) -> Any:
        """Nested dict of tuples of logical axes."""
        return self._metadata(AXES)

    def is_state(self) -> Any:
        """Nested dict of bools: which parameters are state (``constant``)."""
        return self._metadata(STATE)

    def _metadata(self, name: str) -> Any:
        return nnx.to_pure_dict(jax.tree.map(lambda v: v.get_metadata(name), self._state, is_leaf=_is_variable))

    def shardings(self, layout: Layout) -> Any:
        """Nested dict of ``NamedSharding``."""
        return jax.tree.map(layout.sharding, self.axes(), is_leaf=lambda x: isinstance(x, tuple))

    def init(self, key: jax.Array, layout: Layout | None = None, dtype: Any = jnp.float32) -> Any:
        """Initial values, born with their sharding: never whole on one device."""

        def values(key):
            drawn = nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(key))))
            return cast(drawn, dtype)

        return jax.jit(values, out_shardings=None if layout is None else self.shardings(layout))(key)

    def bind(self, params: Any) -> nnx.Module:
        """The module with these values; those of one layer may be a slice of a stack's."""
        state = jax.tree.map(lambda x: x, self._state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(self._graph, state)
