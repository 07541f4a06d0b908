"""Reflection in a model's text: how often it checks itself, and whether that pays.

Two kinds of measure. Counts of reflective words, as the paper follows them through training (Nature 645:633, supplement
C.2: wait, mistake, however, but, retry, error, verify, wrong, evaluate, check), with Chinese words of the same meaning.
And, for search problems, what the model does after a try that fails and after one that succeeds: an increase of the
first without the second is reflection because it pays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

WORDS = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
# The same ten in Chinese. 等等 after a list means "and so on"; the count does not tell the two apart.
CHINESE_WORDS = ("等等", "等一下", "错误", "错了", "不对", "然而", "但是", "重试", "再试", "验证", "评估", "检查")
WAITS = frozenset({"wait", "等等", "等一下"})  # what a writer says when he stops and goes on otherwise

_WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b|{'|'.join(CHINESE_WORDS)}", re.IGNORECASE)
_OPERATORS = "+-*/×÷"
_EXPRESSION = frozenset("0123456789+-*/×÷() .")
_VALUE = re.compile(r"\s{0,3}(-?\d{1,12})(?:/(\d{1,12}))?")


class Try(NamedTuple):
    """One equation ``expression = value`` of a search: the claimed value, and whether the writer then said "wait"."""

    value: Fraction
    waited: bool


def reflective_words(text: str) -> Counter[str]:
    """Counts of the reflective words in ``text``, in lower case; whole words only in English."""
    return Counter(match.group().lower() for match in _WORD.finditer(text))


def reflects(text: str) -> bool:
    """Whether any reflective word occurs."""
    return _WORD.search(text) is not None


def reasoning(completion: str) -> str:
    """What stands before the answer: up to ``</think>``, else up to ``<answer>``, else everything."""
    for mark in ("</think>", "<answer>"):
        before, found, _ = completion.partition(mark)
        if found:
            return before
    return completion


def tries(text: str) -> list[Try]:
    """The equations in ``text``, in order: an arithmetic expression with an operator, ``=``, a number.

    The claimed value counts, as it is what the writer sees; whether the arithmetic is true is another question. Nothing
    is evaluated, and time is linear in the length of the text.
    """
    found: list[tuple[Fraction, int, int]] = []  # value, where the equation begins and ends
    floor = 0  # an expression does not reach back into the equation before
    at = text.find("=")
    while at >= 0:
        begin = at
        while begin > floor and text[begin - 1] in _EXPRESSION:
            begin -= 1
        expression = text[begin:at].strip(" .")
        value = _VALUE.match(text, at + 1)
        if value and any(c.isdigit() for c in expression) and any(c in _OPERATORS for c in expression[1:]):
            if int(value[2] or 1):
                found.append((Fraction(int(value[1]), int(value[2] or 1)), begin, value.end()))
            floor = value.end()
        at = text.find("=", at + 1)
    ends = [begin for _, begin, _ in found[1:]] + [len(text)]
    return [
        Try(value, any(word in WAITS for word in reflective_words(text[end:stop])))
        for (value, _, end), stop in zip(found, ends)
    ]


def search_measures(completions: Iterable[tuple[str, float | int | str]]) -> dict[str, float | int | None]:
    """What follows a failed and a successful try, over (completion, target) pairs of search problems.

    Returns:
      ``tries`` (mean per completion), ``misses`` and ``hits`` (counts), ``wait_after_miss`` and ``wait_after_hit``
      (shares; None where nothing of the kind happened).
    """
    waited: dict[bool, list[bool]] = {False: [], True: []}
    count = 0
    for completion, target in completions:
        goal = Fraction(str(target))
        count += 1
        for one in tries(reasoning(completion)):
            waited[one.value == goal].append(one.waited)

    def share(values: list[bool]) -> float | None:
        return sum(values) / len(values) if values else None

    misses, hits = waited[False], waited[True]
    return {
        "tries": (len(misses) + len(hits)) / count if count else None,
        "misses": len(misses),
        "hits": len(hits),
        "wait_after_miss": share(misses),
        "wait_after_hit": share(hits),
    }
