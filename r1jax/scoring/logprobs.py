"""Log-probabilities that a model gives to packed rows: the old policy's and the reference's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.models import ModelConfig, param_shardings
from r1jax.models.logprobs import token_logprobs
from r1jax.sharding import Layout


class Scorer:
    """A compiled scoring pass, with the program form of the loss's own forward pass.

    For rows of one shape under one layout, dtype, temperature and remat policy it gives, bit for bit on CPU in float32,
    what the micro-step computes: the first ratio after a rollout is exactly 1.

    Args:
      config: of the model.
      layout: the training layout.
      temperature, compute_dtype, remat: as given to ``training.MicroStep``.

    Attributes:
      jitted: the compiled function ``(params, batch) -> (logprobs, entropy)``; call it inside ``layout.use()``.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: Layout,
        *,
        temperature: float = 1.0,
        compute_dtype: Any = jnp.float32,
        remat: str = "nothing",
    ):
        self.layout = layout
        rows = layout.sharding(("batch", "sequence"))

        def score(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
            # Entropy comes out although nobody reads it: without it XLA fuses the head otherwise than in the loss, and
            # one log-probability in a hundred would differ in its last bit.
            return token_logprobs(config, params, batch, temperature, compute_dtype, remat)[:2]

        self.jitted = jax.jit(score, in_shardings=(param_shardings(config, layout), rows), out_shardings=rows)

    def __call__(self, params: Any, batch: Any) -> jax.Array:
        """Log-probabilities ``[B, T]`` of the rows; see ``token_logprobs``.

        Args:
          params: in any dtype, laid out as in training.
          batch: ``data.Batch`` of one micro-batch's shape, on the host or already laid out.
        """
        batch = self.layout.put(batch, ("batch", "sequence"))
        with self.layout.use():
            return self.jitted(params, batch)[0]
