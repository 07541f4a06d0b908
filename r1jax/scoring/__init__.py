"""Scoring: what a model thinks of sequences that already exist."""

from r1jax.scoring.logprobs import Scorer

__all__ = ["Scorer"]
