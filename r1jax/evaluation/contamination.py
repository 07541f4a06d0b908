"""Contamination: texts that share ten words in a row with a benchmark (Nature 645:633, decontamination).

A benchmark is known by the n-grams of its problems and of its reference solutions. Problems of fewer than ten words have no
n-gram: they are known as a whole, and only a problem that equals one (case, width, punctuation and blanks aside) meets it.
Punctuation, signs of mathematics among them, is no part of an n-gram. See ``ngrams`` for scripts without spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from r1jax.data import PromptRow
from r1jax.evaluation.ngrams import is_short, ngrams, whole_hash

WORDS = 10
_TEXTS = 4_096  # looked at together


class Overlap(NamedTuple):
    """What a text shares words with: row ``row`` (from 0) of ``benchmark``."""

    benchmark: str
    row: int


class Contamination:
    """The n-grams of benchmarks.

    Args:
      benchmarks: name -> its rows.
      words: length of an n-gram.

    Raises:
      ValueError: ``words`` is under 1.
    """

    def __init__(self, benchmarks: Mapping[str, Sequence[PromptRow]], words: int = WORDS):
        self.words = words
        self._rows = [(name, row) for name, rows in benchmarks.items() for row in rows]
        hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for field in (lambda row: row.problem, lambda row: row.answer):
            for first, found, owner in _in_parts([field(row) for _, row in self._rows], words):
                hashes.append(found)
                owners.append(owner + first)
        # Of equal n-grams the first text's is kept: the order is by text for problems, then for solutions.
        self._hashes, index = np.unique(np.concatenate(hashes), return_index=True)
        self._owners = np.concatenate(owners)[index]
        self._short: dict[bytes, int] = {}
        for number, (_, row) in enumerate(self._rows):
            if is_short(row.problem, words):
                self._short.setdefault(whole_hash(row.problem), number)

    def __len__(self) -> int:
        """How many n-grams and whole problems it knows."""
        return len(self._hashes) + len(self._short)

    def passages(self, texts: Sequence[str]) -> list[Overlap | None]:
        """What each text shares ``words`` words in a row with; None where there is nothing."""
        found: list[Overlap | None] = [None] * len(texts)
        for first, hashes, owner in _in_parts(texts, self.words):
            place = np.minimum(np.searchsorted(self._hashes, hashes), max(0, len(self._hashes) - 1))
            met = self._hashes[place] == hashes if len(self._hashes) else np.zeros(len(hashes), bool)
            for text, number in zip(owner[met][::-1], self._owners[place[met]][::-1]):  # the first one stays
                found[first + text] = self._overlap(int(number))
        return found

    def problems(self, texts: Sequence[str]) -> list[Overlap | None]:
        """``passages``; of problems too short for any, what each is equal to."""
        found = self.passages(texts)
        for i, text in enumerate(texts):
            if found[i] is None and self._short and is_short(text, self.words):
                number = self._short.get(whole_hash(text))
                found[i] = None if number is None else self._overlap(number)
        return found

    def _overlap(self, number: int) -> Overlap:
        name, row = self._rows[number]
        return Overlap(name, row.index)


def _in_parts(texts: Sequence[str], words: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """``(index of the first text, hashes, owner)`` of some texts at a time."""
    for first in range(0, len(texts), _TEXTS):
        yield (first, *ngrams(texts[first : first + _TEXTS], words))
