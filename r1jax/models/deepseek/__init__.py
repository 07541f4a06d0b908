"""The DeepSeek family: latent attention, mixtures of experts, multi-token prediction. A family as ``models.interface`` says."""

from r1jax.models.deepseek.decoder import block_axes, forward, head_weight, init_block, schema

__all__ = ["block_axes", "forward", "head_weight", "init_block", "schema"]
