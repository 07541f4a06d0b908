"""A reward of this recipe's own, as ``rewards: {answered:comes_to_an_answer: 1.0}`` names it."""

from __future__ import annotations

import re

from r1jax.rewards.record import RewardRequest

LEAST_WORDS = 12
_SAID = re.compile(r"\banswer is\b", re.IGNORECASE)
_LAST_WORDS = re.compile(r"\banswer is:?\s*\$?-?\d[\d,.]*\s*(?:[^\W\d_]+\s*)?\.?$", re.IGNORECASE)


def comes_to_an_answer(request: RewardRequest) -> float:
    """Whether a completion says some words and comes to an end; it does not ask whether the answer is right.

    Returns:
      1.0 if the last words are "the answer is" and a number, said once; 0.5 for another end; 0.0 for fewer than ``LEAST_WORDS``
      words (saying nothing is also an end), or none within the length cap.
    """
    text = request.completion.strip()
    if request.finish_reason == "length" or len(text.split()) < LEAST_WORDS:
        return 0.0
    return 1.0 if _LAST_WORDS.search(text) and len(_SAID.findall(text)) == 1 else 0.5
