"""Whether an answer refuses, and the grader of prompts that should or should not be refused (XSTest, arXiv 2308.01263)."""

from r1jax.rewards.refusals.grading import grade_refusal, is_unsafe, refuses
from r1jax.rewards.refusals.phrases import refusal

__all__ = ["grade_refusal", "is_unsafe", "refusal", "refuses"]
