"""The scalar head of a reward model: one number per sequence, read from the hidden state of its last token.

It stands where a language model has the head of its vocabulary (``ModelConfig.num_labels``), as in Hugging Face's
``*ForSequenceClassification``: a projection without a bias.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from r1jax.models.config import ModelConfig
from r1jax.models.layers import Linear, accumulation_dtype
from r1jax.models.parameters import Schema
from r1jax.sharding import Layout


class ScalarHead(Linear):
    """``[B, T, D] -> [B, T, num_labels]``."""

    def __init__(self, rngs: nnx.Rngs, config: ModelConfig):
        shape = (config.hidden_size, config.num_labels)
        super().__init__(rngs, (), shape, ("embed", None), 1, config.initializer_range)


class _Alone(nnx.Module):
    """The head in its place in a model's tree."""

    def __init__(self, rngs: nnx.Rngs, config: ModelConfig):
        self.score = ScalarHead(rngs, config)


@functools.lru_cache(maxsize=32)
def _schema(config: ModelConfig) -> Schema:
    return Schema(lambda rngs: _Alone(rngs, config))


def init_scalar_head(config: ModelConfig, key: jax.Array, layout: Layout | None = None, dtype: Any = jnp.float32) -> Any:
    """A new head ``{"score": {"kernel": [D, 1]}}``, for the parameters of a language model whose own head is left out.

    Args:
      config: of the reward model: ``num_labels`` is 1.
    """
    return _schema(config).init(key, layout, dtype)


def token_scores(config: ModelConfig, params: Any, hidden: jax.Array) -> jax.Array:
    """What the head reads at each token, ``[B, T]`` in float32 at least; a sequence's score is that of its last token.

    Args:
      config: of a reward model.
      params: the model's; the head is used as it is stored, in float32 at least, so that its gradient is not rounded.
      hidden: ``[B, T, D]``, of ``models.forward``.

    Raises:
      ValueError: a model without a scalar head.
    """
    if not config.num_labels:
        raise ValueError("the model has no scalar head: it is a language model, and gives no scores (num_labels is 0)")
    dtype = accumulation_dtype(hidden)
    kernel = params["score"]["kernel"].astype(dtype)
    return jnp.einsum("BTD,DO->BTO", hidden.astype(dtype), kernel, precision=jax.lax.Precision.HIGHEST)[..., 0]
