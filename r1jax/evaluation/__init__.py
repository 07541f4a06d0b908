"""Benchmarks and what is said about them: pass@1 over k samples, majority votes, intervals by problem, reflection."""

from r1jax.evaluation.benchmark import evaluate, vote_of
from r1jax.evaluation.comparison import paired_differences, problem_means
from r1jax.evaluation.estimators import bootstrap_interval, majority, pass_at_1, pass_at_k

__all__ = [
    "bootstrap_interval",
    "evaluate",
    "majority",
    "paired_differences",
    "pass_at_1",
    "pass_at_k",
    "problem_means",
    "vote_of",
]
