"""Graders of short answers for science and logic prompts: a choice, a number, a text."""

from r1jax.rewards.short_answers.choice import grade_choice
from r1jax.rewards.short_answers.number import grade_number, read_number
from r1jax.rewards.short_answers.text import grade_text, normalise

__all__ = ["grade_choice", "grade_number", "grade_text", "normalise", "read_number"]
