"""Scoring: what a model thinks of sequences that already exist."""

from r1jax.scoring.judge import Judge
from r1jax.scoring.logprobs import Scorer

__all__ = ["Judge", "Scorer"]
