"""Reasoning RL: ``kind: grpo``."""

from r1jax.pipeline.grpo.stage import GRPOStage

__all__ = ["GRPOStage"]
