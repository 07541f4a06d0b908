"""Supervised fine-tuning: ``kind: sft``."""

from r1jax.pipeline.sft.stage import SFTStage

__all__ = ["SFTStage"]
