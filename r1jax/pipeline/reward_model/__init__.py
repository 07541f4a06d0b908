"""Reward models: ``kind: reward_model``, pairwise for helpfulness and pointwise for safety."""

from r1jax.pipeline.reward_model.stage import RewardModelStage

__all__ = ["RewardModelStage"]
