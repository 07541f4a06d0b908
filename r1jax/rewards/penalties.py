"""Penalties, 0 or less: for overlong completions (DAPO), for length, for repetition."""

from __future__ import annotations

import re

# A word of a spaced script (its next 16 letters: a word that never ends is none), one character of an unspaced one, or one
# other sign.
_TOKEN = re.compile(r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff]{1,16}|[^\s_]")
_UNIT = re.compile(r"[^\n.!?;。！？；]+")
_SHORTEST_UNIT = 8  # characters without blanks: "So" or "3*7=21" may come again


def overlong_penalty(tokens: int, cap: int, cache: int = 0) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), in [-1, 0].

    0 up to ``cap - cache`` tokens, then ``((cap - cache) - tokens) / cache`` down to -1 at the cap; -1 beyond it.

    Args:
      tokens: length of the completion. cap: ``L_max``. cache: ``L_cache``; 0 means a fifth of the cap, as in DAPO
        (4,096 of 20,480).

    Raises:
      ValueError: the cap is not positive or the cache lies outside [0, cap].
    """
    if cap <= 0 or not 0 <= cache <= cap:
        raise ValueError(f"an overlong penalty needs a cap over 0 and a cache up to the cap, not {cap} and {cache} tokens")
    cache = cache or max(1, cap // 5)
    return 0.0 - min(1.0, max(0.0, (tokens - (cap - cache)) / cache))


def length_penalty(tokens: int, cap: int) -> float:
    """Minus the share of the cap that a completion uses, in [-1, 0].

    Raises:
      ValueError: the cap is not positive.
    """
    if cap <= 0:
        raise ValueError(f"a length penalty needs a cap over 0, not {cap} tokens")
    return 0.0 - min(1.0, max(0, tokens) / cap)


def repeated_ngrams(text: str, size: int = 20) -> float:
    """Share of the text's n-grams that occurred before, in [0, 1]; 0 for a text of fewer tokens.

    A token is a word, a character of a script without spaces, or another sign. Twenty of them in the same order are hardly
    chance, while shorter ones ("so the answer is", a formula carried along) belong to honest reasoning.

    Raises:
      ValueError: ``size`` is under 1.
    """
    if size < 1:
        raise ValueError(f"an n-gram has at least 1 token, not {size}")
    numbers: dict[str, int] = {}
    tokens = [numbers.setdefault(token, len(numbers)) for token in _TOKEN.findall(text.lower())]
    total = len(tokens) - size + 1
    if total < 1:
        return 0.0
    return 1.0 - len(set(zip(*(tokens[i:] for i in range(size))))) / total


def repeated_units(text: str) -> float:
    """Share of the text, in characters without blanks, that stands in sentences or lines which occurred before word for
    word, in [0, 1]. Units of under eight characters count as neither."""
    seen: set[str] = set()
    total = repeated = 0
    for match in _UNIT.finditer(text.lower()):
        unit = "".join(match[0].split())
        total += len(unit)
        if len(unit) < _SHORTEST_UNIT:
            continue
        if unit in seen:
            repeated += len(unit)
        seen.add(unit)
    return repeated / total if total else 0.0


def repetition_penalty(text: str, size: int = 20) -> float:
    """Minus the larger of ``repeated_ngrams`` and ``repeated_units``, in [-1, 0]."""
    return 0.0 - max(repeated_ngrams(text, size), repeated_units(text))
