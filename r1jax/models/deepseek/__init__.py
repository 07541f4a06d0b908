"""The DeepSeek family: latent attention, mixtures of experts, multi-token prediction. A family as ``models.interface`` says."""

from r1jax.models.deepseek.decoder import (
    block_axes,
    forward,
    head_weight,
    init_block,
    route_shape,
    schema,
    statistics,
)
from r1jax.models.deepseek.mtp import mtp_hidden

__all__ = ["block_axes", "forward", "head_weight", "init_block", "mtp_hidden", "route_shape", "schema", "statistics"]
