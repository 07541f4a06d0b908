"""The dtype policy: master weights in float32, one cast to the compute dtype, the same for every pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

COMPUTE_DTYPES = ("float32", "bfloat16")


def compute_dtype(platform: str, name: str = "") -> jnp.dtype:
    """The dtype in which the sampler, the reference and the trainer compute.

    Args:
      platform: of the mesh (``Layout.platform``).
      name: a recipe's choice; empty means bfloat16 on accelerators and float32 on CPU.

    Raises:
      ValueError: a dtype that is no choice.
    """
    if name and name not in COMPUTE_DTYPES:
        raise ValueError(f"compute_dtype {name!r} is unknown; known: {', '.join(COMPUTE_DTYPES)}")
    return jnp.dtype(name or ("float32" if platform == "cpu" else "bfloat16"))


def dtype_at(path: tuple[Any, ...], dtype: Any) -> jnp.dtype:
    """The dtype of the parameter at ``path`` of a tree that computes in ``dtype``: routers stay float32, since a choice of
    experts flips on little."""
    kept = any(getattr(key, "key", None) == "router" for key in path)
    return jnp.promote_types(dtype, jnp.float32) if kept else jnp.dtype(dtype)


def cast(params: Any, dtype: Any) -> Any:
    """Every floating array of a tree of parameters in ``dtype`` (see ``dtype_at``); differentiable, and nothing where it
    already is."""

    def one(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return x.astype(dtype_at(path, dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree_util.tree_map_with_path(one, params)
