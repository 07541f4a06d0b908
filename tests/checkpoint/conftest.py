"""Tiny models for the tests of the checkpoint room."""

import dataclasses

import jax
import numpy as np
import pytest

from r1jax.checkpoint import export_model
from r1jax.models import ModelConfig, RopeScaling, abstract_params

TINY = ModelConfig(
    architecture="llama",
    vocab_size=64,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    qkv_bias=True,
    o_bias=True,
    mlp_bias=True,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64),
    eos_token_ids=(3, 5),
    dtype="float32",
)


def tiny(**changes) -> ModelConfig:
    """A configuration with every kind of parameter; ``tied`` has no head."""
    return dataclasses.replace(TINY, **changes)


@pytest.fixture
def model():
    """(configuration, parameters); norms and biases are random too, so that an exchange of any two shows."""
    return TINY, random_params(TINY)


def random_params(config, seed=0):
    """Drawn by numpy: nothing to compile."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.3, 0.1, x.shape).astype(np.float32), abstract_params(config))


@pytest.fixture
def directory(tmp_path, model):
    """An exported model, alone in its parent."""
    config, params = model
    export_model(tmp_path / "models" / "hf", config, params)
    return tmp_path / "models" / "hf"


@pytest.fixture
def helpers():
    """``tiny`` and ``random_params``, for tests that want other configurations."""

    class Helpers:
        pass

    Helpers.tiny, Helpers.random_params = staticmethod(tiny), staticmethod(random_params)
    return Helpers
