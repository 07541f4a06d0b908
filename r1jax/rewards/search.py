"""The grader of search problems: reach a target from given numbers, each used at most once, with + - * / and brackets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from r1jax.rewards.answer import marked_answer
from r1jax.rewards.record import Verdict

MAX_CHARACTERS = 500
MAX_DIGITS = 12
MAX_DEPTH = 50

_SPELLINGS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "（": "(", "）": ")", "$": " "})
_TOKEN = re.compile(r"\s*(?:([0-9]+)|(.))", re.DOTALL)


class NotArithmetic(ValueError):
    """The text is not arithmetic over whole numbers, or beyond its bounds."""


class _Arithmetic:
    """A recursive-descent reader of ``text`` that computes as it goes; ``numbers`` and ``operators`` are what it met."""

    def __init__(self, text: str):
        if len(text) > MAX_CHARACTERS:
            raise NotArithmetic(f"{len(text)} characters are too long for an answer")
        self.tokens = [number or other for number, other in _TOKEN.findall(text.strip())] + [""]
        self.place = 0
        self.depth = 0
        self.numbers: list[int] = []
        self.operators = 0

    def take(self, *wanted: str) -> str:
        """The next token if it is one of ``wanted``, else nothing."""
        token = self.tokens[self.place]
        if not token or token not in wanted:
            return ""
        self.place += 1
        return token

    def value(self) -> Fraction:
        result = self.sum()
        if self.tokens[self.place]:
            raise NotArithmetic(f"unexpected {self.tokens[self.place]!r:.20}")
        return result

    def sum(self) -> Fraction:
        result = self.product()
        while operator := self.take("+", "-"):
            self.operators += 1
            term = self.product()
            result = result + term if operator == "+" else result - term
        return result

    def product(self) -> Fraction:
        result = self.factor()
        while operator := self.take("*", "/"):
            self.operators += 1
            factor = self.factor()
            if operator == "/" and factor == 0:
                raise NotArithmetic("it divides by zero")
            result = result * factor if operator == "*" else result / factor
        return result

    def factor(self) -> Fraction:
        sign = 1
        while self.take("-"):
            sign = -sign
        if self.take("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NotArithmetic(f"nested more than {MAX_DEPTH} deep")
            result = self.sum()
            if not self.take(")"):
                raise NotArithmetic("a bracket that never closes")
            self.depth -= 1
            return sign * result
        token = self.tokens[self.place]
        if not (token.isascii() and token.isdigit()):
            raise NotArithmetic(f"expected a number, found {token!r:.20}")
        if len(token) > MAX_DIGITS:
            raise NotArithmetic(f"a number of {len(token)} digits")
        self.place += 1
        self.numbers.append(int(token))
        return Fraction(sign * int(token))


def evaluate_arithmetic(text: str) -> tuple[Fraction, list[int], int]:
    """(exact value, numbers used in order, count of binary operators) of an arithmetic expression over whole numbers.

    Knows ``+ - * /``, ``× ÷ −``, ``\\times``, ``\\cdot``, ``\\div``, brackets and leading minus signs.

    Raises:
      NotArithmetic: it is anything else, divides by zero, or is beyond the bounds.
    """
    for command, sign in (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", "")):
        text = text.replace(command, sign)
    reader = _Arithmetic(text.translate(_SPELLINGS))
    return reader.value(), reader.numbers, reader.operators


def check_search(numbers: Sequence[int], target: int, answer: str) -> tuple[bool, str]:
    """Whether ``answer`` reaches ``target`` from ``numbers`` by the rules, and why (not)."""
    expression, equals, named = answer.partition("=")
    try:
        value, used, operators = evaluate_arithmetic(expression)
        if equals and evaluate_arithmetic(named)[::2] != (Fraction(target), 0):
            return False, f"what it says after = is not {target}"
    except NotArithmetic as error:
        return False, f"not an arithmetic expression: {error}"
    if not operators:
        return False, "it only names a number: an expression over the given ones is asked for"
    surplus = Counter(used) - Counter(numbers)
    if surplus:
        return False, f"it uses {', '.join(map(str, sorted(surplus.elements())))} more often than given"
    if value != target:
        return False, f"its value is {value if len(str(value)) < 30 else 'far away'}, not {target}"
    return True, f"it reaches {target}"


def grade_search(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Grades a row ``{"numbers": [3, 7, 8], "target": 21}``: the marked answer is an expression such as ``3*7`` or ``3*7=21``.

    Its exact value must be the target, each given number is used at most once, none other, and at least one operator: an
    answer that merely names the target is wrong.

    Raises:
      ValueError: the row lacks its numbers or target.
    """
    numbers, target = row.get("numbers"), row.get("target")
    whole = isinstance(numbers, Sequence) and not isinstance(numbers, str) and all(type(n) is int for n in numbers)
    if not whole or not numbers or type(target) is not int:
        raise ValueError(f"a search problem needs numbers (a list of int) and target (int), not {numbers!r} and {target!r}")
    answer = marked_answer(completion)
    if not answer:
        return Verdict.WRONG, "no answer in <answer>...</answer>"
    right, reason = check_search(numbers, target, answer)
    return (Verdict.RIGHT if right else Verdict.WRONG), reason
