"""The dtype policy of computation; master weights, moments and accumulation are float32 everywhere."""

from __future__ import annotations

import jax.numpy as jnp

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def compute_dtype(platform: str, wanted: str = "") -> jnp.dtype:
    """The dtype of rollout weights and of computation: bfloat16 on accelerators, float32 on CPU.

    Args:
      platform: of the mesh's devices (``Layout.platform``).
      wanted: a recipe's ``compute_dtype``; empty leaves it to the platform.

    Raises:
      ValueError: a dtype that is neither.
    """
    if wanted and wanted not in DTYPES:
        raise ValueError(f"compute_dtype {wanted!r} is not one of {', '.join(DTYPES)} (or empty: by platform)")
    return jnp.dtype(DTYPES[wanted] if wanted else jnp.float32 if platform == "cpu" else jnp.bfloat16)
