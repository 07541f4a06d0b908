"""The dtype policy."""

import jax.numpy as jnp
import pytest

from r1jax.models.precision import cast, compute_dtype


def test_compute_dtype_follows_the_platform_unless_named():
    assert compute_dtype("cpu") == jnp.float32
    assert compute_dtype("gpu") == compute_dtype("tpu") == jnp.bfloat16
    assert compute_dtype("gpu", "float32") == jnp.float32 and compute_dtype("cpu", "bfloat16") == jnp.bfloat16
    with pytest.raises(ValueError, match="'fp8' is unknown; known: float32, bfloat16"):
        compute_dtype("cpu", "fp8")


def test_only_floats_are_cast():
    found = cast({"a": jnp.ones(2), "b": jnp.arange(2)}, jnp.bfloat16)
    assert found["a"].dtype == jnp.bfloat16 and found["b"].dtype == jnp.int32
