"""Meshes, the logical-axis table of each phase, and the collision check.

Parameters and activations are declared with *logical* axes; only this file knows the mesh's. A table maps each logical
axis to a mesh axis, several, or none. Trying another layout means changing a table.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

Rules = Mapping[str, str | tuple[str, ...] | None]

# Training: parameters, gradients and optimizer state are spread over fsdp; rows of the batch over data and fsdp.
TRAIN_RULES: Rules = {
    "batch": ("data", "fsdp"),
    "sequence": None,
    "layer": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "ffw": "tensor",
    "latent": "fsdp",
    "expert": "tensor",
    "expert_embed": "fsdp",
    "activation_embed": None,
    "activation_heads": "tensor",
    "activation_ffw": "tensor",
    "activation_vocab": "tensor",
}

# Rollout: no fsdp, which would gather every weight again for each token; prompts' rows are spread over data and fsdp.
ROLLOUT_RULES: Rules = {**TRAIN_RULES, "embed": None, "latent": None, "expert_embed": None}


@dataclass(frozen=True)
class Layout:
    """A mesh and one phase's rules: everything that has to be known to place an array."""

    mesh: Mesh
    rules: Any  # a Rules mapping as sorted items, so that a layout can be hashed

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """The partition of an array whose dimensions have these logical axes.

        Raises:
          KeyError: an axis that the table does not know.
          ValueError: two dimensions that would lie on one mesh axis.
        """
        rules = dict(self.rules)
        unknown = [axis for axis in axes if axis is not None and axis not in rules]
        if unknown:
            raise KeyError(f"logical axis {unknown[0]!r} is not in the table; known: {', '.join(rules)}")
        mapped = [None if axis is None else rules[axis] for axis in axes]
        used = [name for m in mapped if m is not None for name in ((m,) if isinstance(m, str) else m)]
        doubled = sorted({name for name in used if used.count(name) > 1})
        if doubled:
            raise ValueError(f"logical axes {tuple(axes)} put two dimensions on mesh axis {doubled[0]!r}")
        return PartitionSpec(*mapped)

    def sharding(self, axes: Sequence[str | None]) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(axes))

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def platform(self) -> str:
        """The platform of the mesh's devices, which need not be the default backend's."""
        return self.mesh.devices.flat[0].platform

    @property
    def batch_shards(self) -> int:
        """Into how many shards rows of a batch are divided."""
        return int(np.prod([self.mesh.shape[name] for name in self.axes_of("batch")], dtype=int))

    def axes_of(self, name: str) -> tuple[str, ...]:
        """The mesh axes that a logical axis is spread over."""
        mapped = dict(self.rules)[name]
        return (mapped,) if isinstance(mapped, str) else tuple(mapped or ())

    def put(self, tree: Any, axes: Sequence[str | None] | None = None) -> Any:
        """Host arrays onto the mesh: replicated, or each with the same logical axes for its leading dimensions."""
        return jax.tree.map(lambda x: jax.device_put(x, self.sharding(tuple(axes or ())[: np.ndim(x)])), tree)

    @contextlib.contextmanager
    def use(self) -> Iterator[Layout]:
        """Makes this the ambient mesh and table, for what is traced and run inside."""
        token = _current.set(self)
        try:
            with jax.set_mesh(self.mesh):
                yield self
        finally:
            _current.reset(token)


_current: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


def current() -> Layout | None:
    """The ambient layout (``Layout.use``), or None."""
    return _current.get()


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains an activation to the ambient layout; does nothing where there is none (notebooks, one device)."""
    layout = _current.get()
    return x if layout is None else jax.lax.with_sharding_constraint(x, layout.sharding(axes))


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over ``devices`` (default: all). One size may be -1 and takes what is left.

    Raises:
      ValueError: sizes that do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict(zip(MESH_AXES, (data, fsdp, tensor)))
    fixed = int(np.prod([s for s in sizes.values() if s != -1], dtype=int))
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(s == 0 or s < -1 for s in sizes.values()):
        raise ValueError(f"mesh {sizes}: sizes are positive, and at most one may be -1")
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if int(np.prod(list(sizes.values()), dtype=int)) != len(devices):
        raise ValueError(f"mesh {sizes} does not fit {len(devices)} devices; change the recipe's mesh")
    return Mesh(np.array(devices).reshape(tuple(sizes.values())), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def layout(mesh: Mesh, rules: Rules) -> Layout:
    """A layout of ``mesh`` under a phase's table."""
    return Layout(mesh, tuple(sorted(rules.items())))
