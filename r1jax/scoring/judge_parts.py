"""A judge as a part of the reward (``scoring.parts.ModelPart``).

It is shown what a completion says to its reader, without the thought. A completion that says nothing (a thought that never ended)
is not shown to it and gets the least value: there the fault is the sample's, and not the judge's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1jax.rewards.instructions import response_of
from r1jax.rewards.judgements import PREFERENCES
from r1jax.rewards.record import RewardRequest
from r1jax.scoring.judge import Judge, Pair, WithReference
from r1jax.scoring.parts import Scored
from r1jax.scoring.verdicts import Comparison, JudgeVerdict

THINK = "<think>"
_MOST = max(PREFERENCES.values())
_SILENT = "nothing is said, so the least value"


def question_of(request: RewardRequest) -> str:
    """The question as a judge reads it: the row's problem, without a template; the prompt where the row has none."""
    found = (request.row.get(field) for field in ("problem", "question", "Question", "prompt"))
    return str(next((text for text in found if text), request.prompt))


def reference_of(row: Mapping[str, Any]) -> str | None:
    """The answer that a judge compares with: the row's ``reference``, else its ``answer``; None where it has neither."""
    found = next((row[field] for field in ("reference", "answer") if row.get(field) not in (None, "")), None)
    return None if found is None else str(found)


def said(request: RewardRequest) -> str:
    """What the completion says to its reader; empty where its thought never ended."""
    opened = THINK if request.prompt.rstrip().endswith(THINK) else ""
    return response_of(opened + request.completion)


def _reference(request: RewardRequest) -> str:
    if (reference := reference_of(request.row)) is None:
        raise ValueError(
            f"a judge needs a reference answer, in a field reference or answer; the row has {', '.join(request.row) or 'none'}"
        )
    return reference


class CorrectnessPart:
    """1 for an answer that agrees with its row's reference, 0 for one that does not; with several judgements, the share."""

    def __init__(self, judge: Judge, name: str = "judge"):
        self.judge, self.name = judge, name

    def warm_up(self, should_stop: Callable[[], bool] | None = None) -> None:
        """See ``ModelPart``."""
        self.judge.warm_up("reference", should_stop)

    def score(self, requests: Sequence[RewardRequest]) -> list[Scored]:
        """See ``ModelPart``.

        Raises:
          ValueError: a row without a reference.
        """
        asked = [WithReference(question_of(r), _reference(r), said(r)) for r in requests]
        verdicts = iter(self.judge.with_references([each for each in asked if each.answer]))
        return [
            self._scored(next(verdicts)) if each.answer else Scored(0.0, f"reward {self.name}: {_SILENT}") for each in asked
        ]

    def _scored(self, verdict: JudgeVerdict) -> Scored:
        return Scored(verdict.value, verdict.reason and f"reward {self.name}: {verdict.reason}")


class PreferencePart:
    """How much better an answer is than its row's reference (a baseline's answer, or one that is known to be good), in [-1, 1].

    Not a win rate: 0 is an answer as good as the reference, "much better" counts twice "better", and changing the two around
    changes the sign.
    """

    def __init__(self, judge: Judge, name: str = "judge_preference"):
        self.judge, self.name = judge, name

    def warm_up(self, should_stop: Callable[[], bool] | None = None) -> None:
        """See ``ModelPart``."""
        self.judge.warm_up("pair", should_stop)

    def score(self, requests: Sequence[RewardRequest]) -> list[Scored]:
        """See ``ModelPart``.

        Raises:
          ValueError: a row without a reference.
        """
        asked = [Pair(question_of(r), said(r), _reference(r)) for r in requests]
        comparisons = iter(self.judge.compare([pair for pair in asked if pair.a]))
        return [
            self._scored(next(comparisons)) if pair.a else Scored(-1.0, f"reward {self.name}: {_SILENT}") for pair in asked
        ]

    def _scored(self, comparison: Comparison) -> Scored:
        value = None if comparison.value is None else comparison.value / _MOST
        return Scored(value, comparison.reason and f"reward {self.name}: {comparison.reason}")
