"""What a judge's answers come to: readings, their average over repeats and both positions, and how fair the positions were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1jax.rewards.judgements import CORRECTNESS, PREFERENCES, judges_words, read_correctness, read_preference

# Why a judgement can't be read.
CUT_OFF, NO_VERDICT, TOO_LONG = "cut off", "no verdict", "too long"


@dataclass(frozen=True)
class Answer:
    """A judge's answer, as text. ``finish_reason``: ``stop``, or ``length`` where the cap ended it."""

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Reading:
    """One answer of a judge, read.

    Attributes:
      value: of the verdict, as the answers were shown: ``PREFERENCES`` or ``CORRECTNESS``; None where it can't be read.
      label: the verdict; empty where it can't be read.
      reason: why it can't.
    """

    value: float | None
    label: str = ""
    reason: str = ""


def read_answer(answer: Answer, prompt: str, form: str) -> Reading:
    """Reads an answer to a prompt of the form ``reference`` or ``pair``.

    What the length cap ended is not read: the verdict that stands in it may not have been the last.
    """
    if answer.finish_reason == "length":
        return Reading(None, reason=CUT_OFF)
    read, values = {"reference": (read_correctness, CORRECTNESS), "pair": (read_preference, PREFERENCES)}[form]
    label = read(judges_words(answer.text, prompt))
    return Reading(None, reason=NO_VERDICT) if label is None else Reading(values[label], label)


def _mean(readings: Sequence[Reading]) -> float | None:
    values = [reading.value for reading in readings if reading.value is not None]
    return sum(values) / len(values) if values else None


def _first_reason(readings: Sequence[Reading]) -> str:
    return next((reading.reason for reading in readings if reading.reason), "")


@dataclass(frozen=True)
class JudgeVerdict:
    """Whether an answer agrees with its reference, by all judgements of it. Ungraded where none could be read."""

    readings: tuple[Reading, ...]

    @property
    def value(self) -> float | None:
        """The share of ``correct`` among what could be read; None: ungraded."""
        return _mean(self.readings)

    @property
    def correct(self) -> bool | None:
        """Whether most judgements say so; a draw does not. None: ungraded."""
        return None if self.value is None else self.value > 0.5

    @property
    def reason(self) -> str:
        """Why it is ungraded; empty where it is not."""
        return _first_reason(self.readings) if self.value is None else ""


@dataclass(frozen=True)
class Comparison:
    """Which of two answers is better, by all judgements of them, in both orders.

    Attributes:
      straight: readings of the answers in their order.
      swapped: readings with the second one shown first. Their values are as shown, so that plus speaks for the second answer.
    """

    straight: tuple[Reading, ...]
    swapped: tuple[Reading, ...]

    @property
    def by_order(self) -> tuple[float, float] | None:
        """How much better the first answer is, from -2 to 2, by the judgements of either order; None unless both orders have
        some: one alone would say as much about the position as about the answer."""
        straight, swapped = _mean(self.straight), _mean(self.swapped)
        return None if straight is None or swapped is None else (straight, -swapped)

    @property
    def value(self) -> float | None:
        """The mean of both orders, from -2 to 2; None: ungraded. Each order weighs the same, however many of its judgements
        could be read: a judge that always prefers the first position prefers nothing."""
        return None if self.by_order is None else sum(self.by_order) / 2

    @property
    def reason(self) -> str:
        """Why it is ungraded; empty where it is not."""
        return _first_reason([*self.straight, *self.swapped]) if self.value is None else ""

    def clear(self, over: float = 1.0) -> bool:
        """Whether one answer is better by more than ``over``: the paper keeps such pairs and no others."""
        return self.value is not None and abs(self.value) > over


@dataclass(frozen=True)
class PositionBias:
    """How a judge's comparisons depend on the order in which the answers were shown.

    Attributes:
      pairs: comparisons; graded: those with readings of both orders.
      agree, contradict: shares of the graded ones in which both orders prefer the same answer (or neither), or each another.
        The rest: one order has a preference and the other none.
      first: mean value for the answer that is shown first, from -2 to 2; 0 is fair.
      unreadable: share of all judgements that can't be read.
    """

    pairs: int
    graded: int
    agree: float
    contradict: float
    first: float
    unreadable: float


def position_bias(comparisons: Sequence[Comparison]) -> PositionBias:
    """Statistics of comparisons; shares of nothing are 0."""
    orders = [comparison.by_order for comparison in comparisons if comparison.by_order is not None]
    signs = [[(value > 0) - (value < 0) for value in order] for order in orders]
    graded = max(1, len(orders))
    readings = [reading for comparison in comparisons for reading in (*comparison.straight, *comparison.swapped)]
    return PositionBias(
        pairs=len(comparisons),
        graded=len(orders),
        agree=sum(a == b for a, b in signs) / graded,
        contradict=sum(a * b < 0 for a, b in signs) / graded,
        first=sum((straight - swapped) / 2 for straight, swapped in orders) / graded,
        unreadable=sum(reading.value is None for reading in readings) / max(1, len(readings)),
    )
