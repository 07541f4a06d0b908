"""Compilations are counted, whoever asks for them; announced ones apart."""

import jax
import jax.numpy as jnp
import pytest

from r1jax.models.precision import compute_dtype
from r1jax.pipeline.compiles import compile_counter


def test_a_program_counts_once():
    counter = compile_counter()
    x = jnp.ones(3)
    program = jax.jit(lambda x: x * 2 + 1)
    before = counter.total
    program(x)
    assert counter.total == before + 1
    program(x)
    assert counter.total == before + 1
    program(jnp.ones((4, 2)))  # another shape, and the making of it
    assert counter.total >= before + 2
    assert compile_counter() is counter


def test_planned_programs_are_announced_and_told_apart():
    counter, said = compile_counter(), []
    x = jnp.ones(3)
    unplanned = counter.unplanned
    with counter.planned("a raised cap", said.append):
        jax.jit(lambda x: x * 3 - 1)(x)
    assert counter.unplanned == unplanned
    assert len(said) == 1 and said[0].startswith("compiled 1 programs in") and said[0].endswith("a raised cap")
    with counter.planned("nothing", said.append):
        pass
    assert len(said) == 1
    jax.jit(lambda x: x * 4 - 1)(x)
    assert counter.unplanned == unplanned + 1


def test_the_dtype_follows_the_platform():
    assert compute_dtype("cpu") == jnp.float32 and compute_dtype("gpu") == compute_dtype("tpu") == jnp.bfloat16
    assert compute_dtype("gpu", "float32") == jnp.float32
    with pytest.raises(ValueError, match="float16"):
        compute_dtype("gpu", "float16")
