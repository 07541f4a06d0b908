"""Search problems: make a target from two of the given numbers. Countdown in miniature.

``From 3, 7, 8 make 21.`` has nine candidates (three pairs, three operators); a blind guess is right one time in nine or so,
and whoever tries candidates in turn finds it. Sizes: how many numbers are given.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from random import Random

from world.splits import split_of

SMALLEST, LARGEST = 2, 12
OPERATORS = "+-*"
SIZES = {2: 0.10, 3: 0.75, 4: 0.15}  # share of each size wherever problems are drawn at random


def calculate(a: int, operator: str, b: int) -> int:
    """``a operator b`` for the world's operators."""
    return a + b if operator == "+" else a - b if operator == "-" else a * b


@dataclass(frozen=True)
class Candidate:
    """``a operator b`` with ``a > b``, so that no value is negative."""

    a: int
    operator: str
    b: int

    @property
    def value(self) -> int:
        return calculate(self.a, self.operator, self.b)

    def __str__(self) -> str:
        return f"{self.a}{self.operator}{self.b}"


@dataclass(frozen=True)
class SearchProblem:
    """Make ``target`` from two of ``numbers`` (distinct, in the order in which they are shown)."""

    numbers: tuple[int, ...]
    target: int

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Every pair with every operator, in the order in which the textbook tries them."""
        return candidates_of(self.numbers)

    @property
    def solutions(self) -> list[Candidate]:
        return [c for c in self.candidates if c.value == self.target]

    @property
    def key(self) -> str:
        """The canonical problem: the same for every order of the numbers and in every language."""
        return search_key(self.numbers, self.target)

    def text(self, language: str) -> str:
        """The problem in words; both languages have the same number of tokens."""
        if language == "zh":
            return f"用{'、'.join(map(str, self.numbers))}得到{self.target}。"
        return f"From {', '.join(map(str, self.numbers))} make {self.target}."


def candidates_of(numbers: tuple[int, ...]) -> list[Candidate]:
    return [Candidate(max(p), o, min(p)) for p in itertools.combinations(numbers, 2) for o in OPERATORS]


def search_key(numbers: tuple[int, ...], target: int) -> str:
    return f"search {' '.join(map(str, sorted(numbers)))} -> {target}"


def draw_search(random: Random, split: str, sizes: dict[int, float] = SIZES) -> SearchProblem:
    """A problem of ``split``: the numbers, then one of their candidates as the target."""
    while True:
        (size,) = random.choices(list(sizes), weights=sizes.values())
        numbers = tuple(random.sample(range(SMALLEST, LARGEST + 1), size))
        a, b = random.sample(numbers, 2)
        target = calculate(max(a, b), random.choice(OPERATORS), min(a, b))
        if split_of(search_key(numbers, target)) == split:
            return SearchProblem(numbers, target)


def all_search(split: str, size: int) -> list[SearchProblem]:
    """Every canonical problem of ``split`` with ``size`` numbers, numbers in rising order."""
    problems = []
    for numbers in itertools.combinations(range(SMALLEST, LARGEST + 1), size):
        for target in sorted({c.value for c in candidates_of(numbers)}):
            if split_of(search_key(numbers, target)) == split:
                problems.append(SearchProblem(numbers, target))
    return problems
