"""The reward record: what every reward, a rule's or a model's, ends in."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.StrEnum):
    """Whether an answer is right. Only ``RIGHT`` is true as a boolean.

    ``UNGRADED`` says that the grader could not decide (it hung, crashed or met its bounds): such a
    sample takes no part in anything. ``NONE`` says that the prompt has no right answer.
    """

    RIGHT = "right"
    WRONG = "wrong"
    UNGRADED = "ungraded"
    NONE = "none"

    def __bool__(self) -> bool:
        return self is Verdict.RIGHT


@dataclass(frozen=True)
class RewardRecord:
    """The rewards of one sample.

    Attributes:
      parts: the named rewards, unweighted; None where a part could not be graded.
      verdict: of the sample's final answer.
      reason: one line for people: why that verdict.
    """

    parts: Mapping[str, float | None]
    verdict: Verdict
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"parts": dict(self.parts), "verdict": str(self.verdict), "reason": self.reason}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RewardRecord:
        return cls(dict(value["parts"]), Verdict(value["verdict"]), value["reason"])


def as_failure(said: str) -> str:
    """What went wrong as a part of a reason, in which ``; `` separates the parts."""
    return said.replace("; ", ", ")


def common_failure(records: Iterable[RewardRecord]) -> str:
    """What most of the ungraded records say went wrong, in their own words; empty where none says anything.

    Failures stand at the end of a reason, behind what the grader said; each is ``as_failure`` writes it.
    """
    said = Counter(record.reason.rpartition("; ")[2] for record in records)
    del said[""]
    return said.most_common(1)[0][0] if said else ""


@dataclass(frozen=True)
class RewardRequest:
    """What a grader gets to see: text and plain data, never token ids of a model or a jax array.

    Attributes:
      row: the prompt's row of its data set (question, answer, whatever its grader reads).
      prompt: the text that the model was given.
      completion: the text that the model wrote, special tokens that carry structure included.
      tokens: length of the completion in tokens.
      finish_reason: ``stop`` or ``length``.
      extra: whose sample it is: seed, rollout, prompt_id, sample.
      max_tokens: the cap on the completion's length in tokens; 0 where there is none.
    """

    row: Mapping[str, Any]
    prompt: str
    completion: str
    tokens: int = 0
    finish_reason: str = "stop"
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 0
