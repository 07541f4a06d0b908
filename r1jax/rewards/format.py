"""The format rewards: is the reasoning where it belongs?"""

from __future__ import annotations

# Letters by their class that nobody sees.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def _says_something(text: str) -> bool:
    """Whether there is a letter or digit of any language: blanks, dots and invisible characters say nothing."""
    return any(character.isalnum() and character not in _FILLERS for character in text)


def format_reward(completion: str) -> float:
    """1.0 for ``<think>reasoning</think> <answer>answer</answer>`` (R1-Zero's template) and nothing else, else 0.0.

    Each tag stands exactly once and in this order; both bodies say something; only white space stands before, between
    and after them. (In another order one of the bodies below comes out empty.)
    """
    if any(completion.count(tag) != 1 for tag in TAGS):
        return 0.0
    before, _, rest = completion.partition("<think>")
    thought, _, rest = rest.partition("</think>")
    between, _, rest = rest.partition("<answer>")
    answer, _, after = rest.partition("</answer>")
    if before.strip() or between.strip() or after.strip():
        return 0.0
    return float(_says_something(thought) and _says_something(answer))


def think_format_reward(completion: str) -> float:
    """1.0 for ``reasoning</think>answer``, the completion of a prompt that ends by opening ``<think>``, else 0.0.

    ``</think>`` stands exactly once, no other tag of a thought opens, and both sides say something.
    """
    if completion.count("</think>") != 1 or "<think>" in completion:
        return 0.0
    thought, _, answer = completion.partition("</think>")
    return float(_says_something(thought) and _says_something(answer))
