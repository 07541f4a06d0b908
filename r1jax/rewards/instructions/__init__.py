"""Verifiable instructions: the 25 families of IFEval (arXiv 2311.07911), strict and loose."""

from r1jax.rewards.instructions.scoring import (
    Following,
    accuracies,
    check_row,
    follow,
    grade_instructions,
    grade_instructions_loosely,
    response_of,
)

__all__ = [
    "Following",
    "accuracies",
    "check_row",
    "follow",
    "grade_instructions",
    "grade_instructions_loosely",
    "response_of",
]
