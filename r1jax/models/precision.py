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


def cast(params: Any, dtype: Any) -> Any:
    """Every floating array of a tree in ``dtype``; differentiable, and nothing where it already is."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)
